"""What is evaluated: a run directory, a model folder or a hub id, with its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raymdm.config import Config
from raymdm.data.encoding import Encoder, choose_template, load_encoder
from raymdm.data.manifest import NAME, Manifest, read_manifest
from raymdm.data.tokenizer import complete_tokenizer, load_tokenizer, vocabulary_size
from raymdm.decoding.text import response_text
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.models import Backbone, ModelShape, SpecialTokens, load_model, open_weights
from raymdm.models.folder import resolve_folder
from raymdm.training import RunDirectory

_POSITIONS = ("max_position_embeddings", "max_sequence_length")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class Subject:
    """A model with all that turns text into its tokens and back.

    Attributes:
        source: run directory or model folder, as an absolute path, or hub id.
        model_source: folder or hub id of the weights.
        encoder: tokenizer and prompt template.
        shape: of the model.
        weights: fingerprint of the weights.
        manifest: of the prepared data that the tokenizer came from; None for a model with its own.
    """

    source: str
    model_source: str
    encoder: Encoder
    shape: ModelShape
    weights: str
    manifest: Manifest | None = None

    def load(self, device: torch.device | None = None) -> Backbone:
        """The model, ready to decode, on the device (None: the CPU)."""
        model = load_model(self.model_source, tokens=_tokens(self.encoder)).eval()
        return model if device is None else model.to(device)

    @property
    def positions(self) -> int | None:
        """Longest row in tokens that the model was made for; None where its folder does not say."""
        given = [self.shape.published[key] for key in _POSITIONS if key in self.shape.published]
        return int(given[0]) if given else None

    def text(self, response: Sequence[int]) -> str:
        """The text of a response up to its first EOS."""
        return response_text(self.encoder.tokenizer, response, self.shape.eos_token_id)

    def filled(self, row: list[int]) -> str:
        """The text of a whole row, without its special tokens."""
        return str(self.encoder.tokenizer.decode(row, skip_special_tokens=True))


def is_run(source: str) -> bool:
    """Whether a source is a run directory, not a model."""
    return RunDirectory(source).config.is_file()


def open_subject(source: str, config: Config) -> Subject:
    """What a source names; its weights are not read yet.

    Args:
        source: a run directory (tokenizer and template are those of its prepared data), else a
            model folder or hub id with a tokenizer of its own; a folder without one takes that of
            `data.folder`.
        config: of the run, or with `prepare.template`, `mask_token` and `trust_remote_code`.

    Raises:
        CheckpointError: no model there, or its special tokens are not the tokenizer's.
        ConfigurationError: no tokenizer.
        DataError: a run whose prepared data is gone.
    """
    if Path(source).exists():
        source = str(Path(source).absolute())  # actors work in folders of their own
    if is_run(source):
        run = RunDirectory.existing(source)
        if not run.model.is_dir():
            raise CheckpointError(
                f"{run.path} has no model/ (state: {run.status().get('state', 'unknown')}); train "
                "it to the end with `keep` other than metrics"
            )
        manifest: Manifest | None = read_manifest(config.data.folder)
        assert manifest is not None
        run.check_data(config, manifest.fingerprint)
        return _checked(source, str(run.model), _prepared_encoder(config, manifest), manifest)
    folder = resolve_folder(source)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{source} is neither a run directory (with a config.yaml) nor a model folder (with a "
            "config.json); give one, or a Hugging Face id"
        )
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        tokenizer = load_tokenizer(source, config.prepare.trust_remote_code)
        tokenizer = complete_tokenizer(tokenizer, config.prepare.mask_token)
        encoder = Encoder(tokenizer, choose_template(tokenizer, config.prepare.template))
        return _checked(source, source, encoder, None)
    if not (Path(config.data.folder) / NAME).is_file():
        raise ConfigurationError(
            f"{source} has no tokenizer of its own; give the run directory or an exported folder, "
            "or set data.folder to the prepared folder that it was trained on"
        )
    manifest = read_manifest(config.data.folder)
    return _checked(source, source, _prepared_encoder(config, manifest), manifest)


def _prepared_encoder(config: Config, manifest: Manifest) -> Encoder:
    trust = bool(manifest.prepare.get("trust_remote_code", False))
    return load_encoder(config.data.folder, trust)


def _tokens(encoder: Encoder) -> SpecialTokens:
    tokenizer = encoder.tokenizer
    return SpecialTokens(
        tokenizer.mask_token_id, tokenizer.eos_token_id, int(tokenizer.pad_token_id)
    )


def _checked(
    source: str, model_source: str, encoder: Encoder, manifest: Manifest | None
) -> Subject:
    weights = open_weights(model_source, _tokens(encoder))
    shape = weights.shape
    tokenizer = encoder.tokenizer
    # Padding is hidden from attention: any id will do.
    for name in ("mask_token", "eos_token"):
        of_model, of_tokenizer = getattr(shape, f"{name}_id"), getattr(tokenizer, f"{name}_id")
        if of_model != of_tokenizer:
            raise CheckpointError(
                f"{source}: the {name} of the model is {of_model} and that of the tokenizer "
                f"{of_tokenizer} ({getattr(tokenizer, name)!r}); they do not belong together: set "
                "data.folder, or prepare.mask_token, to the model's own"
            )
    if vocabulary_size(tokenizer) > shape.vocabulary_size:
        raise CheckpointError(
            f"{source}: the tokenizer has {vocabulary_size(tokenizer)} tokens and the model "
            f"{shape.vocabulary_size}; they do not belong together"
        )
    return Subject(source, model_source, encoder, shape, weights.fingerprint(), manifest)
