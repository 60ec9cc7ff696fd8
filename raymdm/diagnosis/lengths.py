"""What the rows look like that a run would train on: from prepared data, or assumed."""

from dataclasses import dataclass
from pathlib import Path

from raymdm.config import Config
from raymdm.data.manifest import NAME, Manifest, read_manifest
from raymdm.models import ModelShape, SpecialTokens, load_shape
from raymdm.models.initial import shape_from_config
from raymdm.training.starting import model_shape


@dataclass(frozen=True)
class Lengths:
    """Sizes in tokens.

    Attributes:
        vocabulary_size: of the tokenizer.
        row: of the longest row.
        response: of the longest response: all its tokens may be predicted in one forward.
        source: where the figures come from, for the report.
        manifest: of the prepared data, where there is any.
    """

    vocabulary_size: int
    row: int
    response: int
    source: str
    manifest: Manifest | None = None


def read_lengths(config: Config, vocabulary: int | None = None) -> Lengths:
    """From the manifest of `data.folder`; where it is not there, or a vocabulary is given, rows of
    `prepare.max_length` tokens, every one of them in the response.

    Raises:
        DataError: a manifest that cannot be read.
    """
    folder = Path(config.data.folder)
    if vocabulary is None and (folder / NAME).is_file():
        manifest = read_manifest(folder)
        train = manifest.splits["train"]
        filled = config.data.pad_supervision == "eos"
        row = manifest.max_length if filled else train.longest_row
        # Padding that is supervised, and syntax of the prompt, may be predicted too.
        whole = filled or config.estimator.eligible == "response_and_syntax"
        response = row if whole else train.longest_response
        return Lengths(manifest.vocabulary_size, row, response, str(folder / NAME), manifest)
    row = config.prepare.max_length
    size = vocabulary or config.prepare.vocabulary_size
    return Lengths(size, row, row, "assumed: prepare.max_length, all of it response")


def read_shape(config: Config, lengths: Lengths) -> ModelShape:
    """The model's shape; its vocabulary is the tokenizer's, or that of `model.init_from`.

    Raises:
        CheckpointError: `model.init_from` cannot be read, or does not fit the prepared data.
    """
    if lengths.manifest is not None:
        return model_shape(config, lengths.manifest)
    # Which ids are special changes no size.
    last = lengths.vocabulary_size - 1
    tokens = SpecialTokens(mask_token_id=last, eos_token_id=last, pad_token_id=last)
    if config.model.init_from is not None:
        return load_shape(config.model.init_from, tokens)
    causal = config.estimator.objective == "autoregressive"
    return shape_from_config(
        config.model, vocabulary_size=lengths.vocabulary_size, tokens=tokens, causal=causal
    )
