"""The prepared row, the names of the files, and which split a prompt belongs to."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

SPLITS = ("train", "validation", "test")
MARKS = ("delimiters", "syntax")
"""Optional fields of a row: positions in `input_ids` of the response's answer delimiters and of the
prompt's syntax."""
TEST_SHARE = 0.1
"""Share of a generated task's problems that belongs to the test split, whatever rows are asked for:
asking for more training rows never moves a problem out of the test split."""

Role = Literal["train", "test", "generated"]
"""What a source is read for: training rows, test rows, or a task's own rows, for both."""


def split_file(split: str) -> str:
    """Name of a split's file in the prepared folder."""
    return f"{split}.jsonl"


def row_line(
    input_ids: list[int],
    prompt_length: int,
    row_id: str,
    reference: str | None,
    *,
    delimiters: Sequence[int] = (),
    syntax: Sequence[int] = (),
) -> bytes:
    """One line of a prepared file; there is loss on positions >= prompt_length.

    Args:
        input_ids: Prompt, response and one EOS.
        prompt_length: Tokens of the prompt.
        row_id: Where the row came from, or its own name.
        reference: What scoring needs, as JSON text; None in rows that are never scored.
        delimiters: Positions of answer delimiters, all >= prompt_length; left out when empty.
        syntax: Positions of syntax tokens, all < prompt_length; left out when empty.
    """
    row: dict[str, Any] = {"input_ids": input_ids, "prompt_length": prompt_length, "id": row_id}
    if reference is not None:
        row["reference"] = reference
    if delimiters:
        row["delimiters"] = list(delimiters)
    if syntax:
        row["syntax"] = list(syntax)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def reference_text(reference: Any) -> str:
    """What scoring needs as JSON text. Numpy numbers become plain ones, sets sorted lists."""

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            return value.tolist()
        if isinstance(value, set | frozenset):
            return sorted(value, key=str)
        return str(value)

    return json.dumps(reference, ensure_ascii=False, default=plain)


def prompt_key(prompt: str) -> bytes:
    """Sixteen bytes that stand for a prompt; white space does not tell two problems apart."""
    return hashlib.sha256(" ".join(prompt.split()).encode()).digest()[:16]


def split_of(key: bytes, role: Role, validation_fraction: float) -> str:
    """The split of a prompt: a function of its hash, so equal prompts never part.

    The two decisions read different bytes of the hash and are independent of each other.
    """
    if role == "test" or (role == "generated" and _share(key[:8]) < TEST_SHARE):
        return "test"
    return "validation" if _share(key[8:]) < validation_fraction else "train"


def _share(part: bytes) -> float:
    """Eight bytes as a number in [0, 1)."""
    return int.from_bytes(part, "big") / 2**64
