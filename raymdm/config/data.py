"""Keys of the task, of `raymdm prepare`, and of the prepared data that training reads."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from raymdm.config.section import Section


class TaskSection(Section):
    """Which task: how a raw row becomes a prompt and a response, and how an answer is scored."""

    name: str = "reasoning_gym:chain_sum"
    """A registered task, or `reasoning_gym:<name of a task of that package>`."""
    prompt_template: str | None = None
    """Prompt as a format string over the raw row and its metadata, e.g. `"{question}\\n"`."""
    response_template: str | None = None
    """Response as a format string over the same fields; null takes the task's own."""
    options: dict[str, Any] = {}
    """Options of the task itself, e.g. the difficulty of a generated one."""
    delimiters: list[str] | None = None
    """Regular expressions of the response's answer delimiters; null takes the task's own."""
    syntax: list[str] | None = None
    """Regular expressions of the prompt's syntax, e.g. HTML tags; null takes the task's own."""

    @field_validator("delimiters", "syntax")
    @classmethod
    def _patterns_compile(cls, patterns: list[str] | None) -> list[str] | None:
        for pattern in patterns or ():
            check_pattern(pattern)
        return patterns


class PrepareSection(Section):
    """Where raw rows come from and how they become tokens."""

    train: str = "generate"
    """`generate`, a local .jsonl, .parquet or .csv file, or a Hugging Face dataset id."""
    test: str | None = None
    """The test rows: likewise a file or an id; null for a generated task or a hub split."""
    hub_config: str | None = None
    """Configuration name of a Hugging Face dataset, e.g. `main`."""
    train_split: str = "train"
    """Split of a Hugging Face dataset used for training."""
    test_split: str = "test"
    """Split of a Hugging Face dataset used as test."""
    train_rows: int | None = Field(default=None, ge=1)
    """How many training rows to generate or keep, validation included; null keeps all of a file
    and generates 3000."""
    test_rows: int | None = Field(default=None, ge=1)
    """How many test rows to generate or keep; null keeps all of a file and generates 256."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generated rows. Not the run's seed: all seeds of a sweep share their data."""
    validation_fraction: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Share of the training rows set aside as validation, by hash of the prompt."""
    tokenizer: str = "bpe"
    """`bpe` trains a byte-level BPE on the training rows; else a Hugging Face id or folder."""
    vocabulary_size: int = Field(default=1024, ge=259)
    """Largest size of a BPE vocabulary trained here, special tokens included; 259 is bytes only."""
    mask_token: str = "<|mdm_mask|>"
    """Text of the mask token, added to the tokenizer where it has none."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """`chat` uses the tokenizer's chat template, `plain` none, `auto` chat where there is one."""
    max_length: int = Field(default=512, ge=2)
    """Longest row in tokens, EOS included; longer rows are dropped and counted, never cut."""
    max_prompt_length: int | None = Field(default=None, ge=1)
    """Longest prompt of a training row (or validation row) in tokens; rows with longer ones are
    dropped and counted like those above, never cut. Test rows are not asked."""
    train_references: bool = False
    """Keep in every training row what a response is scored against, as test rows have it: `raymdm
    rl` needs it."""
    trust_remote_code: bool = False
    """Let a tokenizer from the hub run its own code. Off unless you trust it."""


class SourceSection(Section):
    """One of the sources of a mixture."""

    files: list[str] = Field(min_length=1)
    """Its files: paths or URIs (`s3://…`) of `.jsonl`, `.jsonl.gz` or `.parquet`; `*` stands for
    any part of a name within one folder."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of every global batch, in proportion to the other sources' weights."""


class DataSection(Section):
    """The prepared folder and how its rows are streamed."""

    folder: str = "data/prepared"
    """Folder of `train.jsonl`, `validation.jsonl`, `test.jsonl`, `manifest.json`, `tokenizer/`."""
    sources: list[SourceSection] = []
    """Training rows from elsewhere, tokenized as the prepared folder says; every step takes a
    constant number of rows from each source. Empty: the prepared folder's own."""
    shuffle: Literal["full", "window"] = "full"
    """`full`: any row may meet any other; the rows must fit into Ray's object store. `window`:
    fragments are permuted, and rows inside a window of `window_blocks` of them; for sets of any
    size."""
    window_blocks: int = Field(default=8, ge=1)
    """Fragments of average size whose rows are shuffled together under `window`; reading takes
    about as much memory as they do."""
    fragment_bytes: int = Field(default=16 * 2**20, ge=1)
    """Bytes of a plain JSONL file that are read together. A gzip file is one fragment, whatever its
    size; in a Parquet file every row group is one."""
    bad_rows: Literal["error", "skip"] = "error"
    """`error`: a bad row ends the run before it begins, with file and line. `skip`: bad rows are
    counted, left out, and written to `quarantine.jsonl` in the run directory."""
    pad_supervision: Literal["none", "eos"] = "none"
    """`none`: padding is hidden and has no loss. `eos`: rows are filled to the manifest's
    max_length with EOS, and those positions belong to the response (LLaDA's fine-tuning)."""
    rows_per_block: int = Field(default=2048, ge=1)
    """Rows of one streamed block per worker; larger blocks cost memory, smaller ones overhead."""


def check_pattern(pattern: str) -> None:
    """Raise ValueError, naming the pattern, where it is not a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
