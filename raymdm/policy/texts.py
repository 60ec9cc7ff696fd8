"""What every step of a rollout would have answered."""

from collections.abc import Sequence
from typing import Any

from raymdm.decoding import Trace
from raymdm.decoding.text import response_text


def step_texts(traces: Sequence[Trace], tokenizer: Any, eos_token_id: int) -> list[list[str]]:
    """The text of every step's prediction up to its first EOS, [G][S]; equal ones are decoded once.

    Args:
        traces: G, of S steps.
        tokenizer: of the model.
        eos_token_id: ends a text.
    """
    known: dict[bytes, str] = {}

    def text(row: Any, end: int) -> str:
        tokens = row[:end]
        key = tokens.tobytes()
        if key not in known:
            known[key] = response_text(tokenizer, tokens.tolist(), eos_token_id)
        return known[key]

    texts = []
    for trace in traces:
        predictions = trace.predictions.numpy()
        ended = predictions == eos_token_id
        ends = (~ended).cumprod(1).sum(1) if predictions.size else [0] * len(predictions)
        texts.append([text(row, end) for row, end in zip(predictions, ends, strict=True)])
    return texts
