"""Prepared rows of random tokens: a measurement needs lengths and vocabulary, not text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raymdm.data.manifest import FORMAT, Manifest, SplitManifest, write_manifest
from raymdm.data.schema import row_line
from raymdm.models import SpecialTokens


def write_random_rows(
    folder: Path,
    *,
    lengths: np.ndarray,
    prompt_lengths: np.ndarray,
    vocabulary_size: int,
    tokens: SpecialTokens | None = None,
    task: Mapping[str, Any] | None = None,
    reference: Mapping[str, Any] | None = None,
) -> Path:
    """A prepared folder of training rows only, of int64[N] tokens, the first of them the prompt.

    The three last ids are mask, EOS and padding, unless `tokens` says which are. There is no
    tokenizer: what decodes them is to be written beside them.

    Args:
        folder: made where it is missing.
        lengths: of the rows.
        prompt_lengths: of their prompts.
        vocabulary_size: special tokens included.
        tokens: the special ones.
        task: of the rows, where they are scored.
        reference: what all of them are scored against.
    """
    scored = None if reference is None else json.dumps(reference)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    if tokens is None:
        tokens = SpecialTokens(*range(vocabulary_size - 3, vocabulary_size))
    special = [tokens.mask_token_id, tokens.eos_token_id, tokens.pad_token_id]
    plain = np.setdiff1d(np.arange(vocabulary_size), special)
    with open(folder / "train.jsonl", "wb") as file:
        for number, (length, prompt) in enumerate(zip(lengths, prompt_lengths, strict=True)):
            ids = plain[random.integers(0, len(plain), length - 1)].tolist()
            row = [*ids, tokens.eos_token_id]
            file.write(row_line(row, int(prompt), f"row-{number}", scored))
    split = SplitManifest(
        file="train.jsonl",
        rows=len(lengths),
        dropped_too_long=0,
        duplicates_dropped=0,
        wrong_by_own_scorer=0,
        tokens=int(lengths.sum()),
        median_row=int(np.median(lengths)),
        longest_row=int(lengths.max()),
        longest_response=int((lengths - prompt_lengths).max()),
        sha256="",
    )
    write_manifest(
        folder,
        Manifest(
            format=FORMAT,
            fingerprint=f"random rows {len(lengths)} {lengths.sum()} {vocabulary_size}",
            task=dict(task or {}),
            prepare={},
            sources={},
            versions={},
            template="plain",
            tokenizer="tokenizer",
            vocabulary_size=vocabulary_size,
            mask_token_id=tokens.mask_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
            max_length=int(lengths.max()),
            splits={"train": split},
        ),
    )
    return folder
