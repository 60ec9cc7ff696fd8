"""Single tokens as people read them."""

import re
import unicodedata
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""GPT-2's alphabet, in which byte-level tokenizers spell their pieces."""
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"
_WORD_START = "\u2581"


def token_text(tokenizer: Any, token_id: int) -> str:
    """The text of one token: `" the"`, `"<|mask|>"`, `"⟨E2⟩"` for a byte of a longer character.

    Bytes that are no text on their own stand in angle brackets, as do characters that cannot be
    seen (`⟨U+200D⟩`) and ids that the tokenizer does not know (`⟨id 999⟩`). New lines and tabs
    stay.
    """
    piece = _piece(tokenizer, token_id)
    if piece is None:
        return f"⟨id {token_id}⟩"
    text = tokenizer.decode(
        [token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    if piece.startswith(_WORD_START):
        # Decoders of this kind drop the space that a text would start with.
        text = text if text.startswith(" ") else f" {text}"
    elif _REPLACEMENT in text or not text:
        text = _from_bytes(piece) or text
    return "".join(map(_visible, text)) or f"⟨id {token_id}⟩"


def _piece(tokenizer: Any, token_id: int) -> str | None:
    """The tokenizer's own spelling; None for an id beyond its vocabulary (padded embeddings)."""
    try:
        return tokenizer.convert_ids_to_tokens(token_id)
    except (IndexError, KeyError, OverflowError, ValueError):
        return None


def _from_bytes(piece: str) -> str:
    """The text of a piece spelled in bytes, with `⟨E2⟩` for each that is no character's part."""
    if match := _BYTE_PIECE.fullmatch(piece):
        content = bytes.fromhex(match[1])
    elif all(character in _BYTES for character in piece):
        content = bytes(_BYTES[character] for character in piece)
    else:
        return ""
    text = content.decode("utf-8", errors="surrogateescape")
    return "".join(f"⟨{ord(c) - 0xDC00:02X}⟩" if "\udc80" <= c <= "\udcff" else c for c in text)


def _visible(character: str) -> str:
    """A character, or its number where it would show nothing or turn the text around it."""
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Cs"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
