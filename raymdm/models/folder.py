"""Models as Hugging Face folders: `config.json` and safetensors, in LLaDA's published layout.

The tensor names and configuration keys are those of the released LLaDA checkpoints, so that a
folder written here loads elsewhere, and theirs load here without running any code from them. A
causal model, which LLaDA's layout does not know, has one key more: `"raymdm_causal": true`.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raymdm.errors import CheckpointError
from raymdm.models.backbone import Backbone, ModelShape

# Our module path -> the published name.
_TOP = {
    "embedding.weight": "model.transformer.wte.weight",
    "norm.weight": "model.transformer.ln_f.weight",
    "head.weight": "model.transformer.ff_out.weight",
}
_BLOCK = {
    "attention_norm.weight": "attn_norm.weight",
    "attention.query.weight": "q_proj.weight",
    "attention.key.weight": "k_proj.weight",
    "attention.value.weight": "v_proj.weight",
    "attention.output.weight": "attn_out.weight",
    "mlp_norm.weight": "ff_norm.weight",
    "gate.weight": "ff_proj.weight",
    "up.weight": "up_proj.weight",
    "down.weight": "ff_out.weight",
}
_CAUSAL = "raymdm_causal"
# Settings of the published architecture that this backbone has built in.
_FIXED = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "activation_type": "silu",
    "attention_dropout": 0.0,
    "alibi": False,
    "bias_for_layer_norm": False,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "residual_dropout": 0.0,
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
    "weight_tying": False,
}


def published_name(name: str) -> str:
    """The published name of one of our parameters."""
    if name in _TOP:
        return _TOP[name]
    _, index, rest = name.split(".", 2)
    return f"model.transformer.blocks.{index}.{_BLOCK[rest]}"


def save_model(model: Backbone, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        model: gives the shape, and the weights where `state` is None.
        folder: made if missing.
        state: the full weights by our names, for a model that is sharded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict() if state is None else state
    save_file(
        {
            published_name(name): tensor.detach().cpu().contiguous()
            for name, tensor in weights.items()
        },
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    shape = model.shape
    config = {
        **_FIXED,
        "d_model": shape.hidden_size,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.key_value_heads,
        "mlp_hidden_size": shape.intermediate_size,
        "vocab_size": shape.vocabulary_size,
        "embedding_size": shape.vocabulary_size,
        "mask_token_id": shape.mask_token_id,
        "eos_token_id": shape.eos_token_id,
        "pad_token_id": shape.pad_token_id,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
    }
    if shape.causal:
        config[_CAUSAL] = True
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_shape(folder: str | Path) -> ModelShape:
    """The shape that the `config.json` of a folder or hub id describes.

    Raises:
        CheckpointError: no such file, another architecture, or a setting the backbone lacks.
    """
    path = resolve_folder(folder) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: no readable model configuration; expected a Hugging Face model folder"
        ) from error
    for key, value in _FIXED.items():
        if key not in ("architectures",) and config.get(key, value) != value:
            raise CheckpointError(
                f"{path}: {key} is {config[key]!r}; this backbone is a LLaDA model with {value!r}"
            )
    try:
        return ModelShape(
            vocabulary_size=config.get("embedding_size") or config["vocab_size"],
            hidden_size=config["d_model"],
            layers=config["n_layers"],
            heads=config["n_heads"],
            key_value_heads=config.get("n_kv_heads") or config["n_heads"],
            intermediate_size=config.get("mlp_hidden_size")
            or config["mlp_ratio"] * config["d_model"],
            mask_token_id=config["mask_token_id"],
            eos_token_id=config["eos_token_id"],
            pad_token_id=config["pad_token_id"],
            rope_theta=float(config["rope_theta"]),
            norm_epsilon=float(config["rms_norm_eps"]),
            causal=bool(config.get(_CAUSAL, False)),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: the key {error} of a LLaDA model is missing") from error


def load_model(source: str | Path, dtype: torch.dtype = torch.float32) -> Backbone:
    """A backbone from a folder or, if there is no such folder, a hub id.

    Raises:
        CheckpointError: not a LLaDA-shaped checkpoint; names missing, extra or mis-shaped tensors.
    """
    folder = resolve_folder(source)
    model = Backbone(load_shape(folder))
    published = {published_name(name): name for name in model.state_dict()}
    found = _tensors(folder)
    expected = {published_name(name): tuple(t.shape) for name, t in model.state_dict().items()}
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"extra {name}" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{folder}: tensors do not fit config.json: {'; '.join(problems[:5])}{more}"
        )
    model.load_state_dict({published[name]: tensor for name, tensor in found.items()})
    return model.to(dtype)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(p for p in folder.glob("*.safetensors") if re.match(r"model", p.name))
    if not files:
        raise CheckpointError(f"{folder}: no model*.safetensors (pickled weights are not loaded)")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except Exception as error:
            raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from error
    return tensors


def resolve_folder(source: str | Path) -> Path:
    """The folder itself, or the local copy of a hub id. Raises CheckpointError."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    hub_id = str(source)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:
        raise CheckpointError(
            f"model {hub_id!r}: no such folder, and the hub did not give it "
            f"({type(error).__name__}); check the path or the network"
        ) from error
