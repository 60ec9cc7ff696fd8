"""Prompts from the command line, a text file, a JSONL file or stdin, as token ids with numbers."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymdm.data.encoding import Encoder
from raymdm.errors import DataError, UserError
from raymdm.evaluations.subject import Subject

_MARK = re.compile(r"\[MASK(?::(\d{1,6}))?\]")


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        number: its place among the prompts, the address of its noise.
        id: its own name, else its number.
        text: as given; of prepared rows, decoded.
        ids: token ids; with masks in them where it is to be filled in.
    """

    number: int
    id: str
    text: str
    ids: list[int]


@dataclass(frozen=True)
class RawPrompt:
    """A prompt as it was found: a text, or a prepared row's ids and how many are its prompt."""

    place: str
    text: str | None = None
    id: str | None = None
    ids: list[int] | None = None
    prompt_length: int | None = None


def given_prompts(texts: Sequence[str], file: Path | None) -> Iterator[RawPrompt]:
    """The prompts of the command line: arguments (`-` stands for stdin), then those of a file.

    Raises:
        DataError: a file that cannot be read, or a line that is no prompt; names file and line.
    """
    for number, text in enumerate(texts, start=1):
        if text == "-":
            yield from _lines("stdin", sys.stdin)
        else:
            yield RawPrompt(f"prompt {number}", text)
    if file is not None:
        readers = {".txt": _lines, ".jsonl": _rows}
        if file.suffix not in readers:
            raise DataError(f"--prompts {file}: give a .txt file or a .jsonl file")
        try:
            with open(file, encoding="utf-8") as lines:
                yield from readers[file.suffix](str(file), lines)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise DataError(
                f"{file}: cannot be read ({reason}); --prompts takes a .txt file, a prompt on each "
                "line, or a .jsonl file"
            ) from error


def encode_prompts(
    raw: Iterable[RawPrompt], subject: Subject, response_length: int, *, infill: bool
) -> list[Prompt]:
    """Their token ids, checked against the model.

    Args:
        raw: texts, which the subject's template goes around, or ids, which stay as they are.
        subject: tokenizer, template, and the positions that the model has.
        response_length: tokens to be written after each; nothing is with `infill`.
        infill: texts hold marks (`[MASK]`, `[MASK:8]`) to be filled in; they stand for themselves,
            without a chat template.

    Raises:
        DataError: an empty prompt, text of a special token, no mark or a mark that does not fit,
            ids outside the vocabulary, or more tokens than the model has positions.
    """
    found = list(raw)
    for prompt in found:
        try:
            _check(prompt, subject, infill)
        except UserError as error:
            raise DataError(f"{prompt.place}: {error}") from error
    encoder = subject.encoder
    texts = [prompt.text for prompt in found if prompt.ids is None and prompt.text is not None]
    made = iter(_infill_ids(encoder, texts) if infill else encoder.prompts(texts))
    prompts = []
    for number, prompt in enumerate(found):
        ids = next(made) if prompt.ids is None else _given_ids(prompt, infill)
        _check_length(prompt, ids, subject, 0 if infill else response_length)
        text = encoder.tokenizer.decode(ids) if prompt.text is None else prompt.text
        prompts.append(Prompt(number, prompt.id or str(number), text, ids))
    return prompts


def _lines(place: str, lines: Iterable[str]) -> Iterator[RawPrompt]:
    read = "".join(lines).rstrip()
    for number, line in enumerate(read.splitlines(), start=1):
        yield RawPrompt(f"{place}, line {number}", line)


def _rows(place: str, lines: Iterable[str]) -> Iterator[RawPrompt]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{place}, line {number}"
            try:
                yield _row(where, json.loads(line))
            except ValueError as error:
                raise DataError(f"{where}: not valid JSON ({error}); mend the line") from error


def _row(place: str, row: Any) -> RawPrompt:
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object, found a {type(row).__name__}")
    name = None if row.get("id") is None else str(row["id"])
    if "prompt" in row:
        if not isinstance(row["prompt"], str):
            raise DataError(f"{place}: the field 'prompt' must be a text")
        return RawPrompt(place, row["prompt"], name)
    ids, length = row.get("input_ids"), row.get("prompt_length")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        found = ", ".join(row) or "none"
        raise DataError(
            f"{place}: no field 'prompt', and no 'input_ids' of a prepared row (found: {found})"
        )
    if length is not None and (type(length) is not int or not 0 <= length <= len(ids)):
        raise DataError(f"{place}: prompt_length must be an integer within the row, is {length!r}")
    return RawPrompt(place, None, name, ids, length)


def _given_ids(prompt: RawPrompt, infill: bool) -> list[int]:
    """Those of a prepared row that are read: its prompt, or all of it where it is filled in."""
    assert prompt.ids is not None
    return prompt.ids if infill else prompt.ids[: prompt.prompt_length]


def _check(prompt: RawPrompt, subject: Subject, infill: bool) -> None:
    mask, size = subject.shape.mask_token_id, subject.shape.vocabulary_size
    if prompt.ids is not None:
        ids = _given_ids(prompt, infill)
        bad = next((token for token in ids if not 0 <= token < size), None)
        if not ids:
            raise DataError("the prompt is empty")
        if bad is not None:
            raise DataError(f"token id {bad} is outside the model's vocabulary of {size}")
        if infill != (mask in ids):
            raise DataError(
                f"no mask token ({mask}) to fill in" if infill else "a mask token; use --infill"
            )
        return
    assert prompt.text is not None
    if not prompt.text.strip():
        raise DataError("the prompt is empty")
    text = prompt.text
    if infill:
        mask_token = str(subject.encoder.tokenizer.mask_token)
        if not _MARK.search(text) and mask_token not in text:
            raise DataError(
                f"nothing to fill in: mark it by [MASK], [MASK:8] or {mask_token}, or leave out "
                "--infill"
            )
        text = _MARK.sub("", text).replace(mask_token, "")
    subject.encoder.refuse_special(text, "prompt")


def _infill_ids(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    """Ids of texts with a mask token for every mark; the tokenizer itself cuts around them."""
    mask_token = str(encoder.tokenizer.mask_token)
    masked = [_MARK.sub(lambda mark: mask_token * int(mark[1] or 1), text) for text in texts]
    return Encoder(encoder.tokenizer, "plain").prompts(masked)


def _check_length(prompt: RawPrompt, ids: list[int], subject: Subject, more: int) -> None:
    positions = subject.positions
    if positions is not None and len(ids) + more > positions:
        response = f" and {more} of the response" if more else ""
        raise DataError(
            f"{prompt.place}: {len(ids)} tokens{response} are more than the model's {positions} "
            "positions; shorten it"
        )
