"""The list of over-denoising prompts equals a plain computation, cut short or not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.data.evaluation import Item, read_items
from raymdm.data.manifest import read_manifest, write_manifest
from raymdm.data.tokenizer import load_tokenizer
from raymdm.decoding import generate
from raymdm.errors import ConfigurationError, DataError
from raymdm.models import ModelShape, build_model, load_model, save_model
from raymdm.reinforcement.filter import StepJudge, Summary, filter_prompts
from raymdm.reinforcement.prompt_list import read_prompt_list
from raymdm.tasks import Example, TaskSpec, register_task
from raymdm.tasks.registry import _MAKERS

ROWS = 24


def taken(text: str, reference: dict[str, Any]) -> float:
    """Right or wrong in a way that an untrained model's predictions often change."""
    return float((sum(map(ord, text)) + int(reference["answer"])) % 2)


@pytest.fixture(scope="module", autouse=True)
def task() -> Iterator[None]:
    register_task(
        "parity", lambda section: TaskSpec("parity", lambda row: Example("", ""), str.strip, taken)
    )
    yield
    del _MAKERS["parity"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Config]:
    """An untrained model with the tokenizer of the prepared data, and how it decodes."""
    home = tmp_path_factory.mktemp("filter")
    folder = write_prepared(home / "data", {"train": 1, "validation": 0, "test": ROWS})
    (folder / "train.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"task": {"name": "parity"}}))
    shape = ModelShape(
        vocabulary_size=manifest.vocabulary_size,
        hidden_size=16,
        layers=2,
        heads=2,
        key_value_heads=2,
        intermediate_size=32,
        mask_token_id=manifest.mask_token_id,
        eos_token_id=manifest.eos_token_id,
        pad_token_id=manifest.pad_token_id,
    )
    save_model(build_model(shape, 3, 0.8), home / "model")
    config = tiny_config(
        home / "run",
        folder,
        evaluation={
            "batch_size": 5,
            "decoding": {"response_length": 6, "block_length": 3, "steps": 4},
        },
    )
    return str(home / "model"), config


def items_of(config: Config) -> list[Item]:
    return read_items(Path(config.data.folder), read_manifest(config.data.folder), "train", None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def by_hand(model: tuple[str, Config]) -> tuple[list[dict[str, Any]], int]:
    """The over-denoising prompts and how many are right at the end, one prompt at a time."""
    source, config = model
    tokenizer = load_tokenizer(str(Path(config.data.folder) / "tokenizer"))
    backbone, listed, right = load_model(source).eval(), [], 0
    for item in items_of(config):
        _, (trace,) = generate(backbone, [item.prompt], config.evaluation.decoding, True)
        correct = []
        for row in trace.predictions.tolist():
            ids = row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
            correct.append(taken(tokenizer.decode(ids, skip_special_tokens=True), item.reference))
        right += correct[-1] == 1
        if 1 in correct and correct[-1] != 1:
            named = {"number": item.number, "id": item.id}
            listed.append({**named, "first_right": correct.index(1) + 1, "steps": 4})
    return listed, right


def test_the_list_is_that_of_a_plain_computation(
    model: tuple[str, Config], by_hand: tuple[list[dict[str, Any]], int], tmp_path: Path
):
    (source, config), (expected, right) = model, by_hand
    out = tmp_path / "new" / "list.jsonl"
    found = filter_prompts(source, config, out)
    assert 0 < len(expected) < ROWS
    assert rows_of(out) == expected
    assert found == Summary(ROWS, right, len(expected), len(expected) / ROWS, out)
    assert read_prompt_list(out, items_of(config)) == [row["number"] for row in expected]
    beside = json.loads((out.parent / "list.jsonl.settings.json").read_text())
    assert beside["settings"]["decoding"] == config.evaluation.decoding.model_dump()
    assert beside["settings"]["data"] == read_manifest(config.data.folder).fingerprint
    kept = beside["about"]
    assert (kept["steps"], kept["block_length"], kept["seed"]) == (4, 3, 0)
    assert (kept["prompts"], kept["rate"]) == (ROWS, found.rate)


def test_a_cut_loses_no_chunk_and_the_same_job_goes_on(
    model: tuple[str, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, config = model
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    undisturbed = filter_prompts(source, config, whole)
    judged: list[int] = []
    judge = StepJudge.__call__

    def failing(self: StepJudge, items: list[Item]) -> list[dict[str, Any]]:
        if len(judged) == 10:
            raise KeyboardInterrupt
        judged.extend(item.number for item in items)
        return judge(self, items)

    monkeypatch.setattr(StepJudge, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        filter_prompts(source, config, cut)
    assert not cut.exists()
    first, judged[:] = list(judged), [-1]
    assert replace(filter_prompts(source, config, cut), path=whole) == undisturbed
    assert sorted(first + judged[1:]) == list(range(ROWS)), "nothing twice"
    assert cut.read_bytes() == whole.read_bytes()
    judged.clear()
    assert filter_prompts(source, config, whole) == undisturbed
    assert judged == [], "what is there is left as it is"


def test_the_limit_and_other_settings(
    model: tuple[str, Config], by_hand: tuple[list[dict[str, Any]], int], tmp_path: Path
):
    source, config = model
    out = tmp_path / "list.jsonl"
    limited = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"limit": 7})}
    )
    assert filter_prompts(source, limited, out).prompts == 7
    assert rows_of(out) == [row for row in by_hand[0] if row["number"] < 7]
    with pytest.raises(DataError, match=r"list\.jsonl has results of other settings: prompts"):
        filter_prompts(source, config, out)


def test_noise_belongs_to_the_prompt_not_to_its_place_in_a_chunk(
    model: tuple[str, Config], by_hand: tuple[list[dict[str, Any]], int], tmp_path: Path
):
    source, config = model
    found = []
    for size in (1, 7):
        section = config.evaluation.model_copy(update={"batch_size": size})
        decoding = section.decoding.model_copy(update={"temperature": 1.0})
        section = section.model_copy(update={"decoding": decoding})
        out = tmp_path / f"{size}.jsonl"
        filter_prompts(source, config.model_copy(update={"evaluation": section}), out)
        found.append(rows_of(out))
    assert found[0] == found[1] != by_hand[0]


def test_equal_texts_of_an_item_are_scored_once(model: tuple[str, Config]):
    source, config = model
    scored: list[tuple[str, str]] = []

    def score(text: str, reference: dict[str, Any]) -> float:
        scored.append((reference["question"], text))
        return 1.0

    task = TaskSpec("all", lambda row: Example("", ""), str.strip, score)
    tokenizer = load_tokenizer(str(Path(config.data.folder) / "tokenizer"))
    judge = StepJudge(load_model(source).eval(), tokenizer, task, config.evaluation.decoding)
    records = judge(items_of(config))
    assert len(scored) == len(set(scored)) < 4 * ROWS
    assert all(record["right_steps"] == 4 and record["first_right"] == 1 for record in records)
    assert not any(record["over_denoised"] for record in records)


def test_data_of_another_tokenizer_is_refused(model: tuple[str, Config], tmp_path: Path):
    source, config = model
    other = Path(source).with_name("other")
    if not other.exists():
        backbone = load_model(source)
        save_model(backbone, other)
        tokenizer = load_tokenizer(str(Path(config.data.folder) / "tokenizer"))
        tokenizer.save_pretrained(other)
    folder = write_prepared(tmp_path / "data")
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"vocabulary_size": 300}))
    section = config.data.model_copy(update={"folder": str(folder)})
    with pytest.raises(ConfigurationError, match="prepared with another tokenizer than that of"):
        filter_prompts(
            str(other), config.model_copy(update={"data": section}), tmp_path / "list.jsonl"
        )
