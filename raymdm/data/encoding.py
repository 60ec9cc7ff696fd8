"""Text -> token ids: the one template that training and evaluation share.

Prompt and response are tokenized separately and joined. Tokenized as one text, the last characters
of the prompt could merge with the first of the response, and the prompt's ids at evaluation, where
no response follows, would be others than those in training.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raymdm.data.manifest import read_manifest
from raymdm.data.tokenizer import load_tokenizer
from raymdm.errors import ConfigurationError, DataError

Template = Literal["chat", "plain"]


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
        if self.template == "plain":
            return [self._start + ids for ids in self._ids(texts)]
        # The template writes the special tokens itself: none may be added to its text.
        return self._ids(
            [
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": text.strip()}],
                    tokenize=False,
                    add_generation_prompt=True,
                )
                for text in texts
            ]
        )

    def responses(self, texts: list[str]) -> list[list[int]]:
        """Ids of responses, each with exactly one EOS at its end."""
        return [[*ids, self.tokenizer.eos_token_id] for ids in self._ids(texts)]

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

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


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


def load_encoder(folder: str | Path, trust_remote_code: bool = False) -> Encoder:
    """The encoder of a prepared folder: its tokenizer and its template.

    Raises:
        DataError: not a prepared folder.
        ConfigurationError: its tokenizer cannot be loaded.
    """
    manifest = read_manifest(folder)
    tokenizer = load_tokenizer(Path(folder) / manifest.tokenizer, trust_remote_code)
    return Encoder(tokenizer, "chat" if manifest.template == "chat" else "plain")
