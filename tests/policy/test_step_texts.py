"""The texts of all steps: those of the plain path, each decoded once."""

import torch
from rolled import EOS, decoding, rolled, tiny_model

from raymdm.decoding.text import response_text
from raymdm.policy.texts import step_texts


class Letters:
    """A tokenizer of single letters, that counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        self.calls.append(tuple(ids))
        return "".join(chr(97 + token) for token in ids)


def test_they_are_those_of_the_plain_path_and_decoded_once():
    model = tiny_model()
    traces = [roll.trace for steps in (2, 8) for roll in rolled(model, decoding(steps=steps), 4)]
    assert any((trace.predictions == EOS).any() for trace in traces)
    letters = Letters()
    texts = step_texts(traces, letters, EOS)
    assert texts == [
        [response_text(Letters(), row, EOS) for row in trace.predictions.tolist()]
        for trace in traces
    ]
    assert len(set(letters.calls)) == len(letters.calls) < sum(map(len, texts))


def test_what_follows_the_first_eos_is_not_read():
    trace = rolled(tiny_model(), decoding(steps=2), 1)[0].trace
    rows = torch.tensor([[0, 1, EOS, 2, EOS, 3, 3, 3], [EOS, 1, 1, 1, 1, 1, 1, 1]])
    trace.predictions.copy_(rows)
    assert step_texts([trace], Letters(), EOS) == [["ab", ""]]
