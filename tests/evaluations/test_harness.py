"""lm-evaluation-harness asks our model, offline, and reports what our own functions say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from raymdm.config.decoding import DecodingSection
from raymdm.config.evaluation import NelboSection
from raymdm.data.collate import collate
from raymdm.data.encoding import Encoder
from raymdm.data.tokenizer import train_bpe
from raymdm.decoding import generate
from raymdm.diffusion import choice_nats
from raymdm.diffusion.likelihood import shared_masks
from raymdm.diffusion.nelbo import nelbo_under
from raymdm.errors import ConfigurationError, DataError
from raymdm.evaluations import harness
from raymdm.evaluations.given import gives_back
from raymdm.evaluations.harness import run_harness
from raymdm.models import Backbone, ModelShape, build_model, save_model

WORDS = ["red", "green", "blue", "a long grey one", "no", "ten"]
DECODING = DecodingSection(response_length=9)
NELBO = NelboSection(exact_up_to=3, draws=5)


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        yield


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_bpe(["what colour? " + " ".join(WORDS)], 280, "<|mask|>"), "plain")


def tiny(encoder: Encoder, *, causal: bool = False) -> Backbone:
    tokenizer = encoder.tokenizer
    shape = ModelShape(
        vocabulary_size=len(tokenizer),
        hidden_size=16,
        layers=1,
        heads=2,
        key_value_heads=2,
        intermediate_size=16,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        causal=causal,
        family="raymdm" if causal else "llada",
    )
    return build_model(shape, seed=1, initializer_std=0.5).eval()


@pytest.fixture(scope="module")
def model(encoder: Encoder) -> Backbone:
    return tiny(encoder)


DOCUMENTS = [
    {"question": f"what colour {'again ' * (i % 3)}{i}?", "options": WORDS[i % 2 : i % 2 + 4]}
    for i in range(5)
]


def texts_of(model: Backbone, encoder: Encoder, length: int) -> list[str]:
    prompts = encoder.prompts([f"Q: {doc['question']}\nA:" for doc in DOCUMENTS])
    settings = DECODING.model_copy(update={"response_length": length})
    eos, texts = model.shape.eos_token_id, []
    for prompt in prompts:
        [ids] = generate(model, [prompt], settings)
        ids = ids[: ids.index(eos)] if eos in ids else ids
        texts.append(encoder.tokenizer.decode(ids, skip_special_tokens=True))
    return texts


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, model: Backbone, encoder: Encoder) -> Path:
    """A folder with three tasks and their data; some answers are what the model writes."""
    folder = tmp_path_factory.mktemp("tasks")
    written = texts_of(model, encoder, 6)
    rows = [
        {**doc, "label": i % 4, "written": text if i % 2 else "something else"}
        for i, (doc, text) in enumerate(zip(DOCUMENTS, written, strict=True))
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "Q: {{question}}\nA:",
        "metadata": {"version": 1.0},
    }
    mean = {"aggregation": "mean", "higher_is_better": True}
    write = {
        "task": "colour_write",
        "output_type": "generate_until",
        "doc_to_target": "{{written}}",
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match", **mean}],
    }
    choose = {
        "task": "colour_choose",
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_norm", **mean}],
    }
    whole = {
        "task": "colour_whole",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    for task in (write, choose, whole):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**base, **task}))
    return folder


def run(model: Backbone, encoder: Encoder, tasks: Path, *names: str, **more: Any) -> dict[str, Any]:
    return run_harness(model, encoder, names, DECODING, NELBO, include_path=tasks, **more)


def nats(model: Backbone, pairs: list[tuple[list[int], list[int]]], numbers: list[int]) -> Any:
    shape = model.shape
    return choice_nats(
        model,
        shape.mask_token_id,
        rows_of(model, pairs, numbers),
        causal=shape.causal,
        exact_up_to=NELBO.exact_up_to,
        draws=NELBO.draws,
    )


def rows_of(model: Backbone, pairs: list[tuple[list[int], list[int]]], numbers: list[int]) -> Any:
    return collate(
        [prompt + response for prompt, response in pairs],
        [len(prompt) for prompt, _ in pairs],
        numbers,
        pad_token_id=model.shape.pad_token_id,
        eos_token_id=model.shape.eos_token_id,
    )


@pytest.mark.parametrize("causal", [False, True])
def test_the_harness_reports_what_our_own_functions_say(
    causal: bool, encoder: Encoder, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny(encoder, causal=causal)
    found = run(model, encoder, tasks, "colour_write", "colour_choose", "colour_whole")
    rows = [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]
    right, picked, normed, whole = [], [], [], 0.0
    for number, (row, text) in enumerate(zip(rows, texts_of(model, encoder, 6), strict=True)):
        right.append(text == row["written"])
        [prompt] = encoder.prompts([f"Q: {row['question']}\nA:"])
        choices = [ids[:-1] for ids in encoder.responses([f" {o}" for o in row["options"]])]
        result = nats(model, [(prompt, choice) for choice in choices], [number] * 4)
        picked.append(result.per_row.argmin() == row["label"])
        lengths = np.array([len(option) for option in row["options"]])
        normed.append((result.per_row / lengths).argmin() == row["label"])
        [tokens] = encoder.responses([row["question"]])
        whole += nats(model, [([], tokens[:-1])], [number]).per_row[0]
    write, choose = found["results"]["colour_write"], found["results"]["colour_choose"]
    assert write["exact_match,none"] == np.mean(right)
    assert choose["acc,none"] == np.mean(picked)
    assert choose["acc_norm,none"] == np.mean(normed)
    error = np.std(picked, ddof=1) / np.sqrt(len(picked))
    assert choose["acc_stderr,none"] == pytest.approx(error)
    bits = whole / np.log(2) / sum(len(row["question"].encode()) for row in rows)
    assert found["results"]["colour_whole"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-6)
    assert causal or 0 < write["exact_match,none"] < 1
    assert found["n-samples"]["colour_write"] == {"original": 5, "effective": 5}
    assert found["decoding"] == DECODING.model_dump()
    assert found["bound"] == ("exact_likelihood" if causal else "nelbo")
    assert json.loads(json.dumps(found)) == found
    assert capsys.readouterr().out == ""


def test_the_harness_s_own_door_gives_the_same(
    model: Backbone, encoder: Encoder, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # takes seconds
    names = ["colour_write", "colour_choose"]
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    ours = adapter(model, encoder)
    for shots in (None, 2):
        theirs = lm_eval.simple_evaluate(
            ours, tasks=names, task_manager=manager, num_fewshot=shots, log_samples=False
        )
        found = run(model, encoder, tasks, *names, few_shot=shots)
        assert found["results"] == theirs["results"]
        assert found["n-shot"] == theirs["n-shot"] == dict.fromkeys(names, shots or 0)
        assert theirs["config"]["decoding"] == DECODING.model_dump()


def requests(kind: str, arguments: list[tuple[Any, ...]], documents: list[int]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(kind, {}, args, index, metadata=("task", doc, 1))
        for index, (args, doc) in enumerate(zip(arguments, documents, strict=True))
    ]


def adapter(model: Backbone, encoder: Encoder, decoding: DecodingSection = DECODING, **more: Any):
    from raymdm.evaluations.harness_model import HarnessModel

    return HarnessModel(model, encoder, decoding, NELBO, **more)


def test_a_result_depends_neither_on_the_batch_nor_on_what_else_is_asked(
    model: Backbone, encoder: Encoder
) -> None:
    pairs = [(f"Q: {doc['question']}", f" {o}") for doc in DOCUMENTS for o in doc["options"]]
    asked = requests("loglikelihood", pairs, [i // 4 for i in range(len(pairs))])
    writes = [(context, {"max_gen_toks": 4 + i % 2}) for i, (context, _) in enumerate(pairs)]
    written = requests("generate_until", writes, list(range(len(writes))))
    one, many = (adapter(model, encoder, batch_size=size) for size in (1, 64))
    values = many.loglikelihood(asked)
    np.testing.assert_allclose(one.loglikelihood(asked[7:8]), values[7:8], rtol=1e-5)
    np.testing.assert_allclose(
        [value for value, _ in one.loglikelihood(asked[::-1])][::-1],
        [value for value, _ in values],
        rtol=1e-5,
    )
    texts = many.generate_until(written)
    assert one.generate_until(written) == texts
    assert many.generate_until(written[5:6]) == texts[5:6]


@pytest.mark.parametrize(("causal", "guidance"), [(False, 0.0), (False, 0.6), (True, 0.0)])
def test_what_greedy_decoding_writes_is_said_to_be_greedy(
    causal: bool, guidance: float, encoder: Encoder
) -> None:
    model = tiny(encoder, causal=causal)
    prompts = encoder.prompts([doc["question"] for doc in DOCUMENTS] + ["x y"])
    pairs = []
    for length in (1, 2, 5):
        settings = DecodingSection(response_length=length, guidance=guidance, stop_at_eos=False)
        for prompt, written in zip(prompts, generate(model, prompts, settings), strict=True):
            pairs.append((prompt, written))
            for place in range(length):
                other = list(written)
                other[place] = (other[place] + 1) % 200
                pairs.append((prompt, other))
    rows = rows_of(model, pairs, [0] * len(pairs))
    written = generate_each(model, pairs, guidance)
    found = gives_back(model, rows, batch_size=4, guidance=guidance)
    assert found == [list(ids) == own for (_, ids), own in zip(pairs, written, strict=True)]
    assert sum(found) >= 18


def generate_each(model: Backbone, pairs: list[Any], guidance: float) -> list[list[int]]:
    """What greedy decoding writes after each prompt, one by one."""
    return [
        generate(
            model,
            [prompt],
            DecodingSection(response_length=len(ids), guidance=guidance, stop_at_eos=False),
        )[0]
        for prompt, ids in pairs
    ]


def test_guidance_holds_for_likelihoods_too(model: Backbone, encoder: Encoder) -> None:
    guided = DecodingSection(response_length=9, guidance=0.8)
    [(value, _)] = adapter(model, encoder, guided).loglikelihood(
        requests("loglikelihood", [("what colour", " blue")], [3])
    )
    pair = (encoder.prompts(["what colour"])[0], encoder.responses([" blue"])[0][:-1])
    wanted = nelbo_under(
        shared_masks,
        model,
        model.shape.mask_token_id,
        rows_of(model, [pair], [3]),
        exact_up_to=3,
        draws=5,
        batch_size=8,
        guidance=0.8,
    )
    assert value == pytest.approx(-wanted.per_row[0], rel=1e-5)
    assert value != pytest.approx(-nats(model, [pair], [3]).per_row[0], rel=1e-3)


def test_continuations_begin_with_the_context_s_last_spaces(
    model: Backbone, encoder: Encoder
) -> None:
    ours = adapter(model, encoder)
    pairs = [("what colour ", "blue"), ("what colour", " blue"), ("what colour\n", "blue")]
    first, second, third = ours.loglikelihood(requests("loglikelihood", pairs, [0] * 3))
    assert first == second
    assert third != second
    assert ours.loglikelihood(requests("loglikelihood", [("what", "")], [0])) == [(0.0, True)]
    [(value, _)] = ours.loglikelihood(requests("loglikelihood", [("", "blue")], [0]))
    assert np.isfinite(value)


def test_long_texts_are_scored_in_windows_that_see_the_token_before(
    model: Backbone, encoder: Encoder
) -> None:
    text = " ".join(WORDS)
    ids = encoder.responses([text])[0][:-1]
    assert len(ids) > 8
    rolled = adapter(model, encoder, window=len(ids) // 2)
    half = len(ids) // 2
    [value] = rolled.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,)], [2]))
    pairs = [([], ids[:half]), (ids[half - 1 : half], ids[half : 2 * half])]
    numbers = [2, 2 + (1 << 32)]
    if len(ids) % 2:
        pairs.append((ids[half:-1], ids[-1:]))
        numbers.append(2 + (2 << 32))
    assert value == pytest.approx(-nats(model, pairs, numbers).per_row.sum(), rel=1e-5)


def test_requests_say_where_a_response_ends_and_how_it_is_sampled(
    model: Backbone, encoder: Encoder
) -> None:
    ours = adapter(model, encoder)
    plain, short, cut = ours.generate_until(
        requests(
            "generate_until",
            [("Q", {}), ("Q", {"max_new_tokens": 2}), ("Q", {"until": [" ", "", "e"]})],
            [0, 1, 2],
        )
    )
    prompt = encoder.prompts(["Q"])
    [ids] = generate(model, prompt, DECODING)
    assert encoder.tokenizer.decode(ids, skip_special_tokens=True).startswith(plain)
    [two] = generate(model, prompt, DecodingSection(response_length=2))
    assert encoder.tokenizer.decode(two, skip_special_tokens=True).startswith(short)
    assert plain.startswith(cut)
    assert not set(" e") & set(cut)
    sampled = {"do_sample": True, "temperature": 3.0, "top_k": -1, "max_gen_toks": 9}
    [request] = requests("generate_until", [("Q", sampled)], [4])
    first, second = ours.generate_until([request, request])
    assert first != second
    assert ours.generate_until([request, request]) == [first, second]
    settings = DecodingSection(response_length=9, temperature=3.0)
    [ids] = generate(model, prompt, settings, numbers=[4], rollout=1)
    assert encoder.tokenizer.decode(ids, skip_special_tokens=True).startswith(second)
    [request] = requests("generate_until", [("Q", {"max_gen_toks": 0})], [4])
    with pytest.raises(ConfigurationError, match=r"generation_kwargs .* response_length"):
        ours.generate_until([request])


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_under_a_chat_template_contexts_are_the_encoder_s_prompts(
    model: Backbone, encoder: Encoder, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no chat template"):
        adapter(model, encoder).apply_chat_template([{"role": "user", "content": "Q"}])
    monkeypatch.setattr(encoder.tokenizer, "chat_template", CHAT)
    chat = Encoder(encoder.tokenizer, "chat")
    ours = adapter(model, chat)
    context = ours.apply_chat_template([{"role": "user", "content": " Q: what? "}])
    assert context == "<user>Q: what?</s><assistant>"
    pair = (chat.prompts(["Q: what?"])[0], chat.responses(["blue"])[0][:-1])
    asked = requests("loglikelihood", [(context, "blue")], [1])
    wanted = -nats(model, [pair], [1]).per_row[0]
    assert ours.loglikelihood(asked)[0][0] == pytest.approx(wanted, rel=1e-5)
    seen: list[str] = []
    original = type(ours).loglikelihood

    def watched(self: Any, asked: list[Any], disable_tqdm: bool = False) -> Any:
        seen.extend(request.args[0] for request in asked)
        return original(self, asked)

    monkeypatch.setattr(type(ours), "loglikelihood", watched)
    found = run(model, chat, tasks, "colour_choose", limit=2)
    assert found["chat_template"] is True
    assert found["n-samples"]["colour_choose"]["effective"] == 2
    assert set(seen) == {f"<user>Q: {doc['question']}\nA:</s><assistant>" for doc in DOCUMENTS[:2]}


def test_the_harness_s_own_command_line_opens_a_model(
    model: Backbone, encoder: Encoder, tmp_path: Path
) -> None:
    from lm_eval.api.registry import get_model

    save_model(model, tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    kind = get_model("raymdm")
    text = f"pretrained={tmp_path},evaluation.decoding.response_length=7,evaluation.nelbo.draws=3"
    opened = kind.create_from_arg_string(text, {"batch_size": "16", "device": None})
    assert opened.decoding.response_length == 7
    assert opened.nelbo.draws == 3
    assert opened.batch_size == 16
    assert torch.equal(opened.model.head.weight, model.head.weight)
    with pytest.raises(ConfigurationError, match=r"unknown key .*steeps"):
        kind.create_from_arg_obj({"pretrained": str(tmp_path), "evaluation.decoding.steeps": 3})
    with pytest.raises(ConfigurationError, match="pretrained="):
        kind.create_from_arg_obj({})


def test_what_cannot_be_run_is_one_clear_line(
    model: Backbone, encoder: Encoder, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        run(model, encoder, tmp_path / "none", "colour_choose")
    task = yaml.safe_load((tasks / "colour_choose.yaml").read_text())
    for name, change in {
        "code": {"unsafe_code": True},
        "metric": {"metric_list": [{"metric": "nobodys", "aggregation": "mean"}]},
        "data": {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "none.jsonl")}}},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**task, "task": name, **change}))
    with pytest.raises(ConfigurationError, match="runs what the model writes as code"):
        run(model, encoder, tmp_path, "code")
    with pytest.raises(ConfigurationError, match=r"metric 'nobodys' is none of"):
        run(model, encoder, tmp_path, "metric")
    with pytest.raises(DataError, match=r"--lm-eval data: .*cannot be loaded"):
        run(model, encoder, tmp_path, "data")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'raymdm\[lm-eval\]'"):
        run(model, encoder, tasks, "colour_choose")


def test_an_unknown_task_names_the_nearest(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of all tasks takes a while: here it is the folder's own."""
    import lm_eval.tasks

    original = lm_eval.tasks.TaskManager

    def own(include_path: str | None = None, include_defaults: bool = True) -> Any:
        return original(include_path=include_path, include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", own)
    with pytest.raises(ConfigurationError, match="did you mean 'colour_choose'"):
        harness.find_tasks(["colour_chose"], tasks)
    _, names = harness.find_tasks(["colour_w*", "colour_choose"], tasks)
    assert names == ["colour_whole", "colour_write", "colour_choose"]
