"""The text of a response."""

from collections.abc import Sequence
from typing import Any


def response_text(tokenizer: Any, response: Sequence[int], eos_token_id: int) -> str:
    """The text of a response up to its first EOS, without special tokens."""
    ids = list(response)
    if eos_token_id in ids:
        ids = ids[: ids.index(eos_token_id)]
    return str(tokenizer.decode(ids, skip_special_tokens=True))
