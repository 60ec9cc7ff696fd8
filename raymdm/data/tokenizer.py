"""Tokenizers: one from the Hugging Face hub or a folder, or a byte-level BPE trained here."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from raymdm.errors import ConfigurationError

EOS_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|padding|>"
BYTES = 256
SPECIAL_TOKENS = 3
PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")


def train_bpe(texts: Iterable[str], vocabulary_size: int, mask_token: str) -> Any:
    """A byte-level BPE with EOS, padding and mask tokens; any text decodes to itself.

    Every digit is a token of its own, so that equal numbers look equal wherever they stand.

    Args:
        texts: Training rows only: the vocabulary must not know the test rows.
        vocabulary_size: Largest size, special tokens included; a small corpus gives fewer.
        mask_token: Text of the mask token.

    Raises:
        ConfigurationError: the mask token's text is one of the other two.
    """
    specials = [PAD_TOKEN, EOS_TOKEN, mask_token]
    if len(set(specials)) < SPECIAL_TOKENS or not mask_token:
        raise ConfigurationError(
            f"prepare.mask_token: {mask_token!r} is taken; choose another text"
        )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        mask_token=mask_token,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name: str | Path, trust_remote_code: bool = False) -> Any:
    """A tokenizer from a folder or the hub, as it is.

    Raises:
        ConfigurationError: it cannot be loaded; says why and what to do.
    """
    try:
        if _is_plain_fast(Path(name)):
            return PreTrainedTokenizerFast.from_pretrained(str(name))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(name), trust_remote_code=trust_remote_code)
    except (
        Exception
    ) as error:  # the hub, the file system and foreign code all fail in their own way
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise ConfigurationError(
                f"prepare.tokenizer: {str(name)!r} needs code of its own, which is not run "
                "unasked: read it, and if you trust it set prepare.trust_remote_code: true"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(
            f"prepare.tokenizer: {str(name)!r} cannot be loaded as a folder or from the Hugging "
            f"Face hub ({reason}); `bpe` trains one here"
        ) from error


def complete_tokenizer(tokenizer: Any, mask_token: str) -> Any:
    """Give a loaded tokenizer the mask and padding tokens it lacks.

    A mask token that is in the vocabulary already (LLaDA's is, undeclared) is only declared. EOS
    stands in for a missing padding token: padding carries no loss, so it needs no id of its own.

    Raises:
        ConfigurationError: no EOS, or a mask token that is also EOS or padding.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "prepare.tokenizer: this tokenizer has no EOS token, and a response needs an end; "
            "choose one that has"
        )
    if tokenizer.mask_token is None:
        if not mask_token:
            raise ConfigurationError("prepare.mask_token: give the mask token a text")
        tokenizer.add_special_tokens({"mask_token": mask_token})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.mask_token_id in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        raise ConfigurationError(
            f"prepare.mask_token: {tokenizer.mask_token!r} is also the EOS or padding token of the "
            "tokenizer; choose another text"
        )
    return tokenizer


def _is_plain_fast(folder: Path) -> bool:
    """Whether the folder says that its tokenizer needs no class of its own, as a BPE made here.

    AutoTokenizer finds the same class, but importing it imports torch: seconds in every worker.
    """
    try:
        content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return content.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in content


def vocabulary_size(tokenizer: Any) -> int:
    """Smallest number above every token id, added tokens included."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
