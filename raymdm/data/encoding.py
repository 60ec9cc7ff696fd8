"""Text -> token ids: the one template that training and evaluation share.

Prompt and response are tokenized separately and joined. Tokenized as one text, the last characters
of the prompt could merge with the first of the response, and the prompt's ids at evaluation, where
no response follows, would be others than those in training.

Marks are the tokens that overlap a match of a task's patterns. They are searched in the text and
carried over by the tokenizer's offsets, so they are right however the text is cut into tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raymdm.data.manifest import read_manifest
from raymdm.data.tokenizer import load_tokenizer
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import TaskSpec

Template = Literal["chat", "plain"]
_PLACEHOLDER = "(here stands the prompt)"


class Tokens(NamedTuple):
    """A prompt or a response."""

    ids: list[int]
    marks: list[int]
    """Positions in `ids` of the tokens that overlap a match, in order."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and the template around its prompts."""

    tokenizer: Any
    template: Template

    def prompts(self, texts: list[str]) -> list[list[int]]:
        """Ids of prompts, ready for a response to follow; without EOS.

        Under `chat` the prompt is the user's turn, stripped of white space around it, followed by
        the opening of the answer. Under `plain` it stands for itself, after whatever the tokenizer
        puts before a text (a start token, mostly nothing).
        """
        return [tokens.ids for tokens in self.marked_prompts(texts, ())]

    def responses(self, texts: list[str]) -> list[list[int]]:
        """Ids of responses, each with exactly one EOS at its end."""
        return [tokens.ids for tokens in self.marked_responses(texts, ())]

    def marked_prompts(self, texts: list[str], patterns: Sequence[str]) -> list[Tokens]:
        """Prompts as from `prompts`, marked where the user's own text matches a pattern.

        What a chat template adds around it is not searched, unless the template rewrites the user's
        text: then all of the prompt is.
        """
        if self.template == "plain":
            before = self._start
            return [
                Tokens(before + ids, [len(before) + mark for mark in marks])
                for ids, marks in self._tokens(texts, [_covered(text, patterns) for text in texts])
            ]
        texts = [text.strip() for text in texts]
        # The template writes the special tokens itself: none may be added to its text.
        prompts = [self._in_template(text) for text in texts]
        covered = [
            self._covered_in_template(text, prompt, patterns)
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        return self._tokens(prompts, covered)

    def marked_responses(self, texts: list[str], patterns: Sequence[str]) -> list[Tokens]:
        """Responses as from `responses`, marked where the text matches a pattern; EOS never is."""
        covered = [_covered(text, patterns) for text in texts]
        return [
            Tokens([*ids, self.tokenizer.eos_token_id], marks)
            for ids, marks in self._tokens(texts, covered)
        ]

    def refuse_special(self, text: str, what: str) -> None:
        """Raise DataError where a text holds a token that would be read as EOS, mask or padding."""
        for token in self._reserved:
            if token in text:
                raise DataError(
                    f"the {what} contains the text of the special token {token!r}, which would be "
                    "read as that token; remove it"
                )

    @cached_property
    def _reserved(self) -> set[str]:
        tokenizer = self.tokenizer
        return {str(t) for t in (tokenizer.eos_token, tokenizer.mask_token, tokenizer.pad_token)}

    @cached_property
    def _start(self) -> list[int]:
        """What the tokenizer puts before a text (BOS), without what it puts after (EOS, SEP)."""
        bare = self._ids(["a"])[0]
        full = list(self.tokenizer("a")["input_ids"])
        for position in range(len(full) - len(bare) + 1):
            if full[position : position + len(bare)] == bare:
                return full[:position]
        return []

    @cached_property
    def _before(self) -> int:
        """Characters that the chat template puts before the user's text; -1 if it rewrites that."""
        return self._in_template(_PLACEHOLDER).find(_PLACEHOLDER)

    def _in_template(self, text: str) -> str:
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )

    def _covered_in_template(self, text: str, prompt: str, patterns: Sequence[str]) -> bytearray:
        if patterns and self._before >= 0 and prompt.startswith(text, self._before):
            return bytearray(self._before) + _covered(text, patterns)
        return _covered(prompt, patterns)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def _tokens(self, texts: list[str], covered: list[bytearray]) -> list[Tokens]:
        """Ids of texts, marked where they overlap a covered character."""
        if not any(map(any, covered)):
            return [Tokens(ids, []) for ids in self._ids(texts)]
        encoded = self.tokenizer(
            texts, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        )
        rows = zip(encoded["input_ids"], encoded["offset_mapping"], covered, strict=True)
        return [
            Tokens(ids, [i for i, (start, stop) in enumerate(offsets) if any(cover[start:stop])])
            for ids, offsets, cover in rows
        ]


def _covered(text: str, patterns: Sequence[str]) -> bytearray:
    """One for every character of the text that lies in a match, else zero."""
    covered = bytearray(len(text))
    for pattern in patterns:
        for match in re.finditer(pattern, text):
            covered[match.start() : match.end()] = b"\1" * len(match[0])
    return covered


def choose_template(tokenizer: Any, wanted: str) -> Template:
    """The template to use: `auto` takes the tokenizer's chat template where there is one.

    Raises:
        ConfigurationError: `chat` is wanted and the tokenizer has no chat template.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if wanted == "chat" and not has_chat:
        raise ConfigurationError(
            "prepare.template: the tokenizer has no chat template; use `plain`, or `auto`"
        )
    return "chat" if has_chat and wanted != "plain" else "plain"


def check_offsets(tokenizer: Any, task: TaskSpec) -> None:
    """Check that the tokens of a task's delimiters and syntax can be found.

    Raises:
        ConfigurationError: the task has patterns, and the tokenizer (a slow one) has no offsets.
    """
    if (task.delimiters or task.syntax) and not tokenizer.is_fast:
        raise ConfigurationError(
            f"prepare.tokenizer: {type(tokenizer).__name__} is a slow tokenizer, which cannot say "
            "where its tokens stand in the text; use a fast one, or set task.delimiters and "
            "task.syntax to []"
        )


def load_encoder(folder: str | Path, trust_remote_code: bool = False) -> Encoder:
    """The encoder of a prepared folder: its tokenizer and its template.

    Raises:
        DataError: not a prepared folder.
        ConfigurationError: its tokenizer cannot be loaded.
    """
    manifest = read_manifest(folder)
    tokenizer = load_tokenizer(Path(folder) / manifest.tokenizer, trust_remote_code)
    return Encoder(tokenizer, "chat" if manifest.template == "chat" else "plain")
