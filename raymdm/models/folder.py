"""Models as Hugging Face folders: `config.json` and safetensors, in the published layouts.

LLaDA, MMaDA and Dream folders load here without running any code of theirs, and what was loaded is
written back under the same names. Causal Llama, Qwen2 and Qwen3 folders load as masked models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download

from raymdm.errors import CheckpointError
from raymdm.models import dream, llada
from raymdm.models.backbone import Backbone
from raymdm.models.layout import Layout
from raymdm.models.shape import ModelShape, SpecialTokens
from raymdm.models.weights import FolderWeights, assemble, state_of

_LAYOUTS: dict[str, Layout] = {
    "llada": llada.LLADA,
    "mmada": llada.MMADA,
    "dream": dream.DREAM,
    "raymdm": dream.OURS,
}
_READERS = {
    "llada": llada.read_shape,
    "mmada": llada.read_shape,
    "Dream": dream.read_shape,
    "raymdm": dream.read_shape,
}
_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
_FILE_SIZE = "5GB"


def load_model(
    source: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    tokens: SpecialTokens | None = None,
) -> Backbone:
    """A backbone from a folder or, if there is no such folder, a hub id.

    Args:
        source: LLaDA, MMaDA, Dream, one that raymdm wrote, or a causal Llama, Qwen2 or Qwen3.
        dtype: of the weights.
        tokens: needed for a causal checkpoint, which has no mask token: those of the tokenizer.

    Raises:
        CheckpointError: another kind of checkpoint; names missing, extra or mis-shaped tensors.
    """
    return assemble(open_weights(source, tokens), dtype)


def load_shape(source: str | Path, tokens: SpecialTokens | None = None) -> ModelShape:
    """The shape that the `config.json` of a folder or hub id describes; arguments of `load_model`.

    Raises:
        CheckpointError: no such file, another architecture, or a setting the backbone lacks.
    """
    folder = resolve_folder(source)
    return _shape(folder, _configuration(folder), tokens)


def open_weights(source: str | Path, tokens: SpecialTokens | None = None) -> FolderWeights:
    """The weights of a folder or hub id, not yet read; arguments and errors of `load_model`."""
    folder = resolve_folder(source)
    config = _configuration(folder)
    shape = _shape(folder, config, tokens)
    causal = config.get("model_type") in dream.CAUSAL_TYPES
    rows = config["vocab_size"] if causal else shape.vocabulary_size
    return FolderWeights(folder, shape, _LAYOUTS[shape.family], rows)


def save_model(
    model: Backbone, folder: Path, state: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write `config.json` and safetensors files (of at most 5 GB) in the shape's own layout.

    Args:
        model: gives the shape, and the weights where `state` is None.
        folder: made if missing.
        state: the full weights by our names, for a model that is sharded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = _LAYOUTS[model.shape.family]
    weights = state_of(model) if state is None else state
    tensors = {layout.name(name): t.detach().cpu().contiguous() for name, t in weights.items()}
    save_torch_state_dict(tensors, folder, max_shard_size=_FILE_SIZE, metadata={"format": "pt"})
    for path in folder.glob("model*.safetensors"):
        path.chmod(0o644)  # written for the owner alone, as temporary files are
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    config = layout.configuration(model.shape)
    if len(kinds) == 1:
        config["torch_dtype"] = kinds.pop()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def resolve_folder(source: str | Path) -> Path:
    """The folder itself, or the local copy of a hub id. Raises CheckpointError."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    hub_id = str(source)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_FILES))
    except Exception as error:  # the hub, the network and the file system fail in their own ways
        raise CheckpointError(
            f"model {hub_id!r}: no such folder, and the hub did not give it "
            f"({type(error).__name__}); check the path or the network"
        ) from error


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: no readable model configuration; expected a Hugging Face model folder"
        ) from error


def _shape(folder: Path, config: dict[str, Any], tokens: SpecialTokens | None) -> ModelShape:
    path, kind = folder / "config.json", config.get("model_type")
    try:
        if not isinstance(kind, str) or kind not in {*_READERS, *dream.CAUSAL_TYPES}:
            raise CheckpointError(f"{path}: {_unknown(config)}")
        if kind in dream.CAUSAL_TYPES:
            if tokens is None:
                raise CheckpointError(
                    f"{path}: a causal {kind} model has no mask token; give `tokens`, those of a "
                    "tokenizer that has one"
                )
            lacking = dream.check_causal(config)
            if lacking is not None:
                raise CheckpointError(f"{path}: {lacking}")
            return dream.read_causal_shape(config, tokens)
        shape = _READERS[kind](config)
    except KeyError as error:
        raise CheckpointError(f"{path}: the key {error} of a {kind} model is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, AttributeError, ZeroDivisionError, IndexError) as error:
        raise CheckpointError(f"{path}: a value of a {kind} model is wrong ({error})") from error
    _LAYOUTS[shape.family].check(config, path)
    return shape


def _unknown(config: dict[str, Any]) -> str:
    known = ", ".join([*_READERS, *dream.CAUSAL_TYPES])
    text = f"model_type is {config.get('model_type')!r}; raymdm loads {known}"
    if "auto_map" in config:
        text += (
            "; this one needs code of its own (auto_map), which raymdm never runs for a model "
            "(for a tokenizer it does, with prepare.trust_remote_code: true)"
        )
    return text
