"""`raymdm generate`: prompts from anywhere, the same responses however they are decoded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import tiny_config, write_prepared
from rich.console import Console
from typer.testing import CliRunner

from raymdm import generate as verb
from raymdm.cli import app
from raymdm.config import Config
from raymdm.decoding import generate, infill
from raymdm.evaluations.decode import DecodePrompts, Steps
from raymdm.evaluations.live import LiveView, styled_text
from raymdm.evaluations.subject import open_subject
from raymdm.models import load_model
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.job import make_job

RUN = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Config]:
    """A run that has learned next to nothing, whose tokens therefore vary from prompt to prompt."""
    home = tmp_path_factory.mktemp("generate")
    folder = write_prepared(home / "data")
    model = {"hidden_size": 16, "layers": 1, "heads": 2, "initializer_std": 1.0}
    config = tiny_config(home / "run", folder, model=model)
    job = make_job(config, RunDirectory(config.run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    run_in_process(job)
    return run, config


def command(run: RunDirectory, *options: object, text: str | None = None) -> tuple[int, str]:
    done = RUN.invoke(app, ["generate", str(run.path), *map(str, options)], input=text)
    return done.exit_code, done.output


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(run: RunDirectory, config: Config, *prompts: str) -> list[list[int]]:
    subject = open_subject(str(run.path), config)
    ids = subject.encoder.prompts(list(prompts))
    return generate(load_model(run.model).eval(), ids, config.evaluation.decoding)


def test_responses_are_those_of_the_sampler(trained: tuple[RunDirectory, Config], tmp_path: Path):
    run, config = trained
    prompts = ["1 + 2=", "3 + 4 + 5=", "9="]
    (tmp_path / "prompts.txt").write_text("3 + 4 + 5=\n9=\n\n")
    out = tmp_path / "out.jsonl"
    status, output = command(run, prompts[0], "--prompts", tmp_path / "prompts.txt", "--out", out)
    assert status == 0, output
    rows = rows_of(out)
    assert [row["prompt"] for row in rows] == prompts
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert [row["tokens"] for row in rows] == expected(run, config, *prompts)
    assert rows[0].keys() == {"id", "prompt", "response", "tokens", "steps"}
    beside = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert beside["settings"]["decoding"] == config.evaluation.decoding.model_dump()


def test_prepared_rows_stdin_and_arguments_give_the_same(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, config = trained
    row = rows_of(Path(config.data.folder) / "test.jsonl")[0]
    text = open_subject(str(run.path), config).encoder.tokenizer.decode(
        row["input_ids"][: row["prompt_length"]]
    )
    (tmp_path / "row.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "text.jsonl").write_text(json.dumps({"prompt": text, "id": row["id"]}) + "\n")
    outputs = []
    for name in ("row", "text"):
        status, _ = command(
            run, "--prompts", tmp_path / f"{name}.jsonl", "--out", tmp_path / f"{name}.out"
        )
        assert status == 0
        outputs.append((tmp_path / f"{name}.out").read_text())
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["id"] == row["id"]
    printed = command(run, text)[1]
    assert printed == json.loads(outputs[0])["response"] + "\n"
    assert command(run, "-", text=text + "\n")[1] == printed


def test_a_cut_loses_no_chunk_and_the_same_command_goes_on(
    trained: tuple[RunDirectory, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, _ = trained
    prompts = [f"{n} + {n}=" for n in range(7)]
    options = [*prompts, "--set", "evaluation.batch_size=2", "--out"]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    command(run, *options, whole)

    done: list[int] = []
    records = DecodePrompts.records

    def failing(self: DecodePrompts, subject: Any, model: Any, part: list[Any]) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.extend(prompt.number for prompt in part)
        return records(self, subject, model, part)

    with monkeypatch.context() as patch:
        patch.setattr(DecodePrompts, "records", failing)
        status, output = command(run, *options, cut)
    assert status == 130
    assert "the same command goes on" in output
    assert not cut.exists()
    done.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            DecodePrompts,
            "records",
            lambda self, subject, model, part: (
                done.extend(prompt.number for prompt in part) or records(self, subject, model, part)
            ),
        )
        status, output = command(run, *options, cut)
    assert status == 0
    assert "4 of 7 are there" in output
    assert len(done) == 3
    assert cut.read_text() == whole.read_text()
    assert "nothing to do" in command(run, *options, cut)[1]
    status, output = command(run, *options, cut, "--set", "evaluation.decoding.steps=1")
    assert status == 2
    assert "decoding.steps is None there and 1 here" in output


def test_noise_belongs_to_the_prompt_whatever_shares_its_batch(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, _ = trained
    noisy = ["1=", "1 + 1=", "1=", "1=", "--set", "evaluation.decoding.temperature=1.0"]
    found = []
    for size in (1, 3, 64):
        out = tmp_path / f"{size}.jsonl"
        command(run, *noisy, "--set", f"evaluation.batch_size={size}", "--out", out)
        found.append([tuple(row["tokens"]) for row in rows_of(out)])
    assert found[0] == found[1] == found[2]
    assert len({found[0][0], found[0][2], found[0][3]}) > 1  # equal prompts have noise of their own


@pytest.mark.ray
def test_two_actors_give_the_file_that_this_process_gives(
    ray_cluster: None, trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, _ = trained
    prompts = [f"{n} + {'1' * (n % 4)}=" for n in range(9)]
    noisy = ["--set", "evaluation.decoding.temperature=1.0", "--trace", "--out"]
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert command(run, *prompts, *noisy, here)[0] == 0
    status, output = command(
        run,
        *prompts,
        *noisy,
        there,
        "--set",
        "evaluation.actors=2",
        "--set",
        "cluster.address=auto",
    )
    assert status == 0, output
    assert there.read_text() == here.read_text()
    assert len({tuple(row["tokens"]) for row in rows_of(here)}) > 1


def test_the_trace_ends_in_the_response(trained: tuple[RunDirectory, Config], tmp_path: Path):
    run, _ = trained
    out = tmp_path / "out.jsonl"
    stop = ["--set", "evaluation.decoding.stop_at_eos=false"]
    assert command(run, "1 + 2=", "4=", "--trace", *stop, "--out", out)[0] == 0
    for row in rows_of(out):
        trace = row["trace"]
        assert trace["states"][-1] == row["tokens"]
        assert len(trace["states"]) == row["steps"] == 3
        assert len(trace["start"]) == 3
        # Of three positions one fewer is predicted at every step.
        assert [step.count(None) for step in trace["confidence"]] == [0, 1, 2]


def test_gaps_are_filled_and_nothing_else_changes(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, config = trained
    out = tmp_path / "out.jsonl"
    assert command(run, "--infill", "[MASK:2] + 2=[MASK]", "--out", out)[0] == 0
    (row,) = rows_of(out)
    subject = open_subject(str(run.path), config)
    mask = subject.shape.mask_token_id
    given = [mask, mask, *subject.encoder.prompts([" + 2="])[0], mask]
    model = load_model(run.model).eval()
    assert row["tokens"] == infill(model, [given], config.evaluation.decoding)[0]
    assert row["tokens"][2:-1] == given[2:-1]
    assert mask not in row["tokens"]
    assert " + 2=" in row["response"]


def test_a_typed_prompt_is_answered_and_a_bad_one_explained(
    trained: tuple[RunDirectory, Config], monkeypatch: pytest.MonkeyPatch
):
    run, config = trained
    lines = iter(["1 + 2=", "", "<|endoftext|>", "3 +\\", " 4="])

    def typed(self: Console, prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(Console, "input", typed)
    subject = open_subject(str(run.path), config)
    asked = verb._asked(subject, config.evaluation.decoding, infill=False)
    assert [(prompt.number, prompt.text) for prompt in asked] == [(0, "1 + 2="), (1, "3 +\n 4=")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no prompts: give some"),
        ([""], "prompt 1: the prompt is empty"),
        (["1<|mdm_mask|>"], "prompt 1: the prompt contains the text of the special token"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--prompts", "prompts.csv"], "give a .txt file or a .jsonl file"),
        (["--prompts", "blank.txt"], "blank.txt, line 2: the prompt is empty"),
        (["--prompts", "broken.jsonl"], "broken.jsonl, line 2: not valid JSON"),
        (["--prompts", "other.jsonl"], "other.jsonl, line 1: no field 'prompt'"),
        (["--prompts", "ids.jsonl"], "ids.jsonl, line 1: token id 99999 is outside"),
        (["1" * 5000], "are more than the model's 4096 positions"),
        (["1", "--trace"], "give one"),
        (["1", "--live", "--out", "x"], "it goes with neither --out nor evaluation.actors"),
        (["1", "--infill"], "nothing to fill in: mark it by [MASK]"),
        (["1", "--out", "no/where"], "there is no folder"),
        (["1", "--set", "evaluation.decoding.stepz=1"], "did you mean"),
        (["1", "--set", "training.learning_rate=1"], "belongs to another configuration"),
        (
            [
                *("1", "--set", "evaluation.decoding.block_length=2"),
                *("--set", "evaluation.decoding.steps=3"),
            ],
            "choose a multiple of 2",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    trained: tuple[RunDirectory, Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    Path("blank.txt").write_text("1=\n\n2=\n")
    Path("broken.jsonl").write_text('{"prompt": "1="}\n{"prompt"\n')
    Path("other.jsonl").write_text('{"question": "1="}\n')
    Path("ids.jsonl").write_text('{"input_ids": [3, 99999], "prompt_length": 2}\n')
    status, output = command(trained[0], *options)
    assert status == 2
    (line,) = [line for line in output.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert message in line


def test_sources_that_are_no_model_are_refused(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    for source, message in ((tmp_path, "neither a run directory"), ("no where", "no such folder")):
        done = RUN.invoke(app, ["generate", str(source), "1"])
        assert done.exit_code == 2
        assert message in done.output


def test_a_model_folder_answers_like_its_run_and_its_length_is_said(
    trained: tuple[RunDirectory, Config],
):
    run, _ = trained
    length = ["--set", "evaluation.decoding.response_length=3"]
    alone = RUN.invoke(app, ["generate", str(run.model), "1 + 2=", *length])
    assert alone.output == command(run, "1 + 2=")[1]
    unsaid = RUN.invoke(app, ["generate", str(run.model), "1 + 2="])
    assert "response length 128 tokens" in unsaid.output
    free = command(run, "1 + 2=", "--set", "evaluation.decoding.response_length=null")[1]
    assert "response length 3 tokens: the longest training response" in free


def test_steps_are_those_in_which_a_response_changed():
    steps = Steps([2, 1])
    for states in ([[0, 5], [0, 9]], [[0, 5], [7, 9]], [[4, 5], [7, 8]]):
        steps([0, 1], torch.tensor(states))
    assert steps.counts == [2, 2]  # the second row has one position; what lies beyond is no text


def test_the_live_view_shows_masks_as_blocks_and_ends_at_an_eos(
    trained: tuple[RunDirectory, Config],
):
    run, config = trained
    subject = open_subject(str(run.path), config)
    tokenizer, shape = subject.encoder.tokenizer, subject.shape
    mask, eos = shape.mask_token_id, shape.eos_token_id
    (digits,) = tokenizer(["12é"])["input_ids"]
    row = [*digits, mask, eos, mask]
    text = styled_text(tokenizer, shape, row, {1}, set(), ends=True)
    assert text.plain == "12é▒∎"
    assert [text.plain[s.start : s.end] for s in text.spans if s.style == "bold green"] == ["2"]
    assert styled_text(tokenizer, shape, row, set(), set(), ends=False).plain == "12é▒∎▒"

    console = Console(force_terminal=True, width=60, record=True)
    view = LiveView(console, tokenizer, shape, [mask] * 3, infill=False)
    with view:
        view.watch([0], torch.tensor([[mask, digits[0], mask]]))
        assert view.figures.startswith("step 1  1/3 tokens")
        assert view.row == [mask, digits[0], mask]


def test_watching_changes_no_response(trained: tuple[RunDirectory, Config]):
    run, config = trained
    subject = open_subject(str(run.path), config)
    work, model = DecodePrompts(str(run.path), config), subject.load()
    prompts = verb.encode_prompts([verb.RawPrompt("", "1 + 2=")], subject, 3, infill=False)
    seen: list[list[int]] = []
    watched = work.records(subject, model, prompts, lambda rows, states: seen.append(rows))
    assert watched == work.records(subject, model, prompts)
    assert seen[0] == [0]
