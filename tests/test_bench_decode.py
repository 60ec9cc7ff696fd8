"""`raymdm bench decode`: sides write the same tokens, and their forwards are those of decoding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raymdm.benchmarks import decode as decode_bench
from raymdm.benchmarks.decode import Plan, measure_batches, measure_decoding
from raymdm.benchmarks.decode_work import Forwards, Prompts, Responses, Subject, random_prompts
from raymdm.benchmarks.plain_decoding import plain_decoding
from raymdm.benchmarks.repetitions import exact_match, keys, repeated, teach
from raymdm.config.decoding import DecodingSection
from raymdm.config.model import ModelSection
from raymdm.decoding import generate
from raymdm.errors import RunError

SIZES = ModelSection(hidden_size=16, layers=1, heads=2)
SUBJECT = Subject("smallest", SIZES, 40, 0.5)
PLAN = Plan(
    prompts=5,
    shortest=2,
    longest=9,
    response_length=8,
    steps=4,
    long_response=16,
    long_block=4,
    long_steps=8,
    long_prompts=2,
    key_length=4,
    keys=3,
    lessons=3,
    loop_prompts=3,
    checked=5,
    blocks=1,
)


def test_every_part_is_compared() -> None:
    rows = measure_decoding(PLAN, [SUBJECT], lambda told: None)
    assert [(row.part, row.model, row.side, row.against) for row in rows] == [
        ("batches", "smallest", "batched", "its forwards"),
        ("batches", "smallest", "batched", "one by one"),
        ("caches", "smallest", "prefix", "none"),
        ("caches", "smallest", "dual", "none"),
        ("loop", "smallest", "noise 0", "LLaDA's loop"),
        ("loop", "smallest", "noise 0.5", "LLaDA's loop"),
        ("caches", "tiny, taught", "dual", "plain"),
        ("caches", "tiny, taught", "threshold", "plain"),
        ("caches", "tiny, taught", "dual + threshold", "plain"),
    ]
    for row in rows:
        assert row.speed > 0
        assert 0 < row.faster.low <= row.faster.median <= row.faster.high
        assert (row.score is None) == (row.model == "smallest")
    assert {
        row.side: row.aim for row in rows if row.part == "batches" or row.score is not None
    } == {
        "batched": 1.0,
        "dual": None,
        "threshold": None,
        "dual + threshold": 4.0,
    }
    assert [len(table.rows) for table in decode_bench.tables(rows)] == [2, 5, 2]


def test_sides_that_write_other_tokens_get_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(*given: object, **settings: object) -> Responses:
        return [[0] * 8 for _ in range(5)]

    monkeypatch.setattr(decode_bench, "plain_decoding", lazy)
    with pytest.raises(RunError, match=r"LLaDA's loop and decoding differ .* no ratio is given"):
        decode_bench.measure_loop(replace(PLAN, loop_prompts=5), SUBJECT, SUBJECT.build())

    def other(model: object, prompts: Prompts, settings: object, batch_size: int = 64) -> Responses:
        return [[batch_size] * 8 for _ in prompts]

    monkeypatch.setattr(decode_bench, "generate", other)
    with pytest.raises(RunError, match="one by one and batched differ"):
        measure_batches(PLAN, SUBJECT, SUBJECT.build())


@pytest.mark.parametrize(("block", "steps"), [(8, 8), (8, 3), (4, 4), (4, 6)])
def test_the_plain_loop_decodes_as_we_do(block: int, steps: int) -> None:
    model = SUBJECT.build().double()
    # Where the mask token is probable it counts in the confidence of the others.
    model.head.weight.data[model.shape.mask_token_id] *= 3
    prompts = random_prompts(SUBJECT, 4, 1, 9)
    sizes = {"response_length": 8, "block_length": block, "steps": steps}
    settings = DecodingSection.model_validate({**sizes, "stop_at_eos": False})
    assert plain_decoding(model, prompts, **sizes) == generate(model, prompts, settings)


def test_the_plain_loop_draws_at_a_temperature() -> None:
    """One position: its frequencies are the model's probabilities at the temperature."""
    model, prompt = SUBJECT.build().double(), [3, 7, 1]
    torch.manual_seed(0)
    drawn = plain_decoding(
        model, [prompt] * 4000, response_length=1, block_length=1, steps=1, temperature=2.0
    )
    mask = model.shape.mask_token_id
    logits = model(torch.tensor([[*prompt, mask]]))[0, -1].detach()
    logits[mask] = -torch.inf
    # Dividing Gumbel noise by the temperature is dividing the logits by it.
    wanted = (logits / 2.0).softmax(-1).numpy()
    found = np.bincount(np.array(drawn)[:, 0], minlength=40) / 4000
    assert np.abs(found - wanted).max() < 0.04
    assert wanted.max() < 0.9


def test_forwards_are_repeated_on_what_they_read() -> None:
    model, seen = SUBJECT.build(), []
    settings = DecodingSection(response_length=8, steps=4, stop_at_eos=False)
    prompts = random_prompts(SUBJECT, 3, 2, 9)
    hook = model.register_forward_hook(lambda *call: seen.append(call[-1].clone()))
    forwards = Forwards(model, lambda: generate(model, prompts, settings))
    decoded = list(seen)
    seen.clear()
    forwards()
    hook.remove()
    assert len(decoded) == len(seen) >= 4
    for ours, again in zip(decoded, seen, strict=True):
        torch.testing.assert_close(ours, again)


def test_a_repetition_follows_from_its_key() -> None:
    key = np.array([[0, 24, 25], [5, 6, 7]])
    responses = repeated(key, 7)
    assert responses.tolist() == [[1, 25, 0, 2, 0, 1, 3], [6, 7, 8, 7, 8, 9, 8]]
    assert exact_match(key, responses.tolist()) == 1
    responses[0, 6] += 1
    assert exact_match(key, responses.tolist()) == 0.5
    assert not np.array_equal(keys(2, 4, 0), keys(2, 4, 1))


def test_a_model_learns_them() -> None:
    model = SUBJECT.build()
    losses = teach(model, key_length=2, response_length=8, steps=150, learning_rate=1e-2)
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:5])
