"""Denoising: what must hold of every step, for any model."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from written import EOS, MASK, SHAPE, Fixed, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, generate
from raymdm.models import Backbone

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model()


def settings_of(length: int, **keys: Any) -> DecodingSection:
    return DecodingSection(response_length=length, stop_at_eos=False, **keys)


def revealed(trace: Trace) -> list[list[int]]:
    return [(state != MASK).nonzero()[:, 0].tolist() for state in trace.states]


@pytest.mark.parametrize(("block", "steps"), [(None, None), (4, 12), (5, 6), (12, 3), (3, 40)])
def test_every_step_reveals_its_share_and_nothing_is_ever_rewritten(
    model: Backbone, block: int | None, steps: int | None
):
    settings = settings_of(12, block_length=block, steps=steps)
    responses, traces = generate(model, PROMPTS, settings, trace=True)
    assert all(len(trace.states) == (steps or 12) for trace in traces)
    for response, trace in zip(responses, traces, strict=True):
        for before, state in zip(trace.inputs, trace.states, strict=True):
            kept = before != MASK
            assert (state[kept] == before[kept]).all()
        assert trace.states[-1].tolist() == response
        assert MASK not in response
    counts = [[len(slots) for slots in revealed(trace)] for trace in traces]
    assert counts[0] == counts[1] == counts[2]


def test_blocks_are_finished_from_left_to_right(model: Backbone):
    settings = settings_of(10, block_length=4, steps=6)  # blocks of 4, 4, 2
    _, traces = generate(model, PROMPTS, settings, trace=True)
    for index, slots in enumerate(revealed(traces[0])):
        block = index // 2
        assert set(range(4 * block)) <= set(slots) <= set(range(4 * (block + 1)))
    assert [len(slots) for slots in revealed(traces[0])] == [2, 4, 6, 8, 9, 10]


def test_the_mask_token_is_never_written():
    logits = torch.zeros(24)
    logits[MASK], logits[6] = 50.0, 3.0
    assert generate(Fixed(logits), [[1, 2]], settings_of(5, steps=2)) == [[6] * 5]


def test_a_mask_in_the_prompt_stays_and_is_not_a_slot(model: Backbone):
    _, (trace,) = generate(model, [[1, MASK, 3]], settings_of(4), trace=True)
    assert trace.positions.tolist() == [3, 4, 5, 6]
    assert [len(slots) for slots in revealed(trace)] == [1, 2, 3, 4]


def table_of(confidences: list[float]) -> torch.Tensor:
    """Columns after two prompt tokens, each sure of a token of its own."""
    table = torch.zeros(2 + len(confidences), 24)
    for slot, confidence in enumerate(confidences):
        table[2 + slot, 10 + slot] = confidence
    return table


def test_the_most_confident_come_first_and_equals_from_the_left():
    model = Fixed(table_of([1.0, 4.0, 2.0, 4.0]))
    responses, (trace,) = generate(model, [[1, 2]], settings_of(4), trace=True)
    assert revealed(trace) == [[1], [1, 3], [1, 2, 3], [0, 1, 2, 3]]
    assert responses == [[10, 11, 12, 13]]


def test_a_threshold_reveals_all_that_reach_it_and_at_least_one():
    # Probabilities 0.11, 0.97, 0.24, 0.97 and 0.97: the last lies in another block.
    model = Fixed(table_of([1.0, 6.6, 2.0, 6.6, 6.6]))
    settings = settings_of(5, block_length=4, threshold=0.9)
    _, (trace,) = generate(model, [[1, 2]], settings, trace=True)
    assert revealed(trace) == [[1, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    surely = settings.model_copy(update={"threshold": 0.1})
    _, (trace,) = generate(model, [[1, 2]], surely, trace=True)
    assert revealed(trace) == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_rows_reach_a_threshold_at_their_own_pace(model: Backbone):
    settings = settings_of(12, block_length=4, threshold=0.35)
    responses, traces = generate(model, PROMPTS, settings, trace=True)
    assert len({len(trace.states) for trace in traces}) > 1
    for prompt, response in zip(PROMPTS, responses, strict=True):
        assert generate(model, [prompt], settings) == [response]


def test_a_random_order_does_not_ask_the_model_and_repeats_with_its_seed():
    model = Fixed(table_of([9.0, 1.0, 9.0, 1.0, 9.0, 1.0]))

    def order(**keys: Any) -> list[list[int]]:
        settings = settings_of(6, confidence="random", **keys)
        return revealed(generate(model, [[1, 2]], settings, trace=True)[1][0])

    assert order() == order()
    assert len({str(order(seed=seed)) for seed in range(5)}) == 5


EOS_FIRST = table_of([1.0, 0.0, 2.0, 0.0])
EOS_FIRST[3, EOS], EOS_FIRST[3, 17], EOS_FIRST[5, EOS] = 7.0, 3.0, 6.0
"""Slots sure of 10, EOS, 12, EOS, in the order 1, 3, 2, 0; where EOS
is not written, the confidence of slots 1 and 3 is the little that EOS leaves."""


@pytest.mark.parametrize(
    ("keys", "order", "response"),
    [
        ({}, [[1], [1, 3], [1, 2, 3], [0, 1, 2, 3]], [10, EOS, 12, EOS]),
        ({"eos": "last"}, [[2], [0, 2], [0, 1, 2], [0, 1, 2, 3]], [10, EOS, 12, EOS]),
        ({"eos": "never"}, [[2], [0, 2], [0, 1, 2], [0, 1, 2, 3]], [10, 17, 12, 0]),
        ({"eos": "last", "threshold": 0.5}, [[2], [0, 2], [0, 1, 2, 3]], [10, EOS, 12, EOS]),
        (
            {"eos": "last", "block_length": 2},
            [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]],
            [10, EOS, 12, EOS],
        ),
    ],
)
def test_eos_is_free_comes_last_or_is_not_written(
    keys: dict[str, Any], order: list[list[int]], response: list[int]
):
    model = Fixed(EOS_FIRST)
    responses, (trace,) = generate(model, [[1, 2]], settings_of(4, **keys), trace=True)
    assert revealed(trace) == order
    assert responses == [response]


@pytest.mark.parametrize("trace", [False, True])
def test_a_row_whose_text_stands_up_to_its_eos_is_finished(trace: bool):
    model = Fixed(EOS_FIRST)
    settings = DecodingSection(response_length=4, block_length=2)
    found = generate(model, [[1, 2]], settings, trace=trace)
    assert found == [[10, EOS, EOS, EOS]] if not trace else found[0] == [[10, EOS, EOS, EOS]]
    assert len(model.widths) == 2  # EOS stands first, then what is before it


def test_stopping_at_eos_changes_nothing_of_the_text(model: Backbone):
    prompts = [[a, b] for a in range(16) for b in range(4)]
    whole = generate(model, prompts, settings_of(16, temperature=6.0))
    stopped = generate(model, prompts, DecodingSection(response_length=16, temperature=6.0))
    ended = [row.index(EOS) for row in whole if EOS in row]
    assert len(ended) > 3
    for row, short in zip(whole, stopped, strict=True):
        end = row.index(EOS) if EOS in row else 16
        assert short == row[:end] + [EOS] * (16 - end)


def test_only_what_is_needed_is_computed():
    model = Fixed(table_of([1.0, 4.0, 2.0, 4.0]))
    generate(model, [[1, 2], [3, 4]], settings_of(4, block_length=2))
    assert model.selected == [4, 2, 4, 2]  # of two rows, the masks of their block
    generate(model, [[1, 2], [3, 4]], settings_of(4, block_length=2, steps=12))
    assert len(model.selected) == 8  # steps that write nothing need no forward
    model.selected.clear()
    generate(model, [[1, 2]], settings_of(4, block_length=2), trace=True)
    assert model.selected == [4, 3, 2, 1]  # for the trace, all masks


def test_finished_rows_leave_the_batch_and_their_padding_goes_with_them():
    class Ends(Fixed):
        """A row that starts with 5 writes EOS first; others never do."""

        columns: ClassVar[list[int]] = []

        def forward(self, input_ids: Any, attention_mask: Any, select: Any) -> torch.Tensor:
            self.columns.append(input_ids.shape[1])
            logits = super().forward(input_ids, attention_mask, select)
            rows = select.nonzero()[:, 0]
            logits[(input_ids == 5).any(-1)[rows], EOS] = 9.0
            return logits

    model = Ends(torch.zeros(24))
    settings = DecodingSection(response_length=3)
    assert generate(model, [[1], [5, 2, 3, 4]], settings) == [[0, 0, 0], [EOS] * 3]
    assert model.widths == [2, 1, 1]
    assert model.columns == [7, 4, 4]


def test_the_watcher_sees_every_step_of_every_row():
    model = Fixed(table_of([1.0, 4.0, 2.0, 4.0]))
    seen: list[tuple[list[int], list[list[int]]]] = []
    generate(
        model,
        [[1, 2]] * 3,
        settings_of(4, steps=2),
        batch_size=2,
        watch=lambda rows, states: seen.append((rows, states.tolist())),
    )
    assert [rows for rows, _ in seen] == [[0, 1], [0, 1], [2], [2]]
    assert seen[0][1] == [[MASK, 11, MASK, 13]] * 2
    assert seen[1][1] == [[10, 11, 12, 13]] * 2


def test_a_rollout_and_a_number_have_noise_of_their_own(model: Backbone):
    settings = settings_of(8, temperature=1.0)

    def of(number: int, rollout: int) -> list[int]:
        return generate(model, [[1, 2]], settings, numbers=[number], rollout=rollout)[0]

    assert of(0, 0) == of(0, 0)
    assert len({tuple(of(number, rollout)) for number in range(3) for rollout in range(3)}) == 9
    assert generate(model, [[1, 2]] * 3, settings) == [of(number, 0) for number in range(3)]


def test_guidance_reads_the_rows_without_their_prompts(model: Backbone):
    prompts = [[1, 2, 3], [4]]
    settings = settings_of(2, steps=1, guidance=1.5)
    found = generate(model, prompts, settings)
    for prompt, response in zip(prompts, found, strict=True):
        ids = torch.tensor([[*prompt, MASK, MASK]])
        with torch.no_grad():
            own, free = model(ids), model(torch.full_like(ids, MASK))
        guided = (free + 2.5 * (own - free))[0, -2:]
        guided[:, MASK] = -torch.inf
        assert guided.argmax(-1).tolist() == response
    assert found != generate(model, prompts, settings_of(2, steps=1))


def test_no_prompts_are_no_responses(model: Backbone):
    assert generate(model, [], settings_of(4)) == []
    assert generate(model, [], settings_of(4), trace=True) == ([], [])


def test_decoding_needs_no_gradient(model: Backbone):
    generate(model, [[1]], DecodingSection(response_length=2))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pad_and_mask_may_be_one_token():
    model = tiny_model(replace(SHAPE, pad_token_id=MASK))
    settings = settings_of(6)
    together = generate(model, PROMPTS, settings)
    assert together == [generate(model, [prompt], settings)[0] for prompt in PROMPTS]
