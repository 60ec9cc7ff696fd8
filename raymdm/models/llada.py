"""LLaDA's published layout, and MMaDA's, which is LLaDA's with image codes in the vocabulary.

A causal model, which neither knows, has one key more: `"raymdm_causal": true`.
"""

from typing import Any

from raymdm.models.layout import Configuration, Layout
from raymdm.models.shape import ModelShape

_CAUSAL = "raymdm_causal"
_SETTINGS: dict[str, Any] = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "activation_type": "silu",
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "alibi": False,
    "bias_for_layer_norm": False,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "include_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "residual_dropout": 0.0,
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
}


def read_shape(config: Configuration) -> ModelShape:
    """The shape of a LLaDA or MMaDA configuration. Raises KeyError for a missing key."""
    return ModelShape(
        vocabulary_size=config.get("embedding_size") or config["vocab_size"],
        hidden_size=config["d_model"],
        layers=config["n_layers"],
        heads=config["n_heads"],
        key_value_heads=config.get("n_kv_heads")
        or (1 if config.get("multi_query_attention") else config["n_heads"]),
        intermediate_size=config.get("mlp_hidden_size") or config["mlp_ratio"] * config["d_model"],
        mask_token_id=config["mask_token_id"],
        eos_token_id=config["eos_token_id"],
        pad_token_id=config["pad_token_id"],
        rope_theta=float(config["rope_theta"]),
        norm_epsilon=float(config["rms_norm_eps"]),
        causal=bool(config.get(_CAUSAL, False)),
        query_key_value_bias=bool(config.get("include_qkv_bias", False)),
        tied_head=bool(config.get("weight_tying", False)),
        family="mmada" if config["model_type"] == "mmada" else "llada",
        published=dict(config),
    )


def _configuration(shape: ModelShape) -> dict[str, Any]:
    written: dict[str, Any] = {
        "d_model": shape.hidden_size,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.key_value_heads,
        "mlp_hidden_size": shape.intermediate_size,
        # The vocabulary may be smaller than the embedding, which is padded.
        "vocab_size": shape.published.get("vocab_size", shape.vocabulary_size),
        "embedding_size": shape.vocabulary_size,
        "max_sequence_length": shape.published.get("max_sequence_length", 4096),
        "mask_token_id": shape.mask_token_id,
        "eos_token_id": shape.eos_token_id,
        "pad_token_id": shape.pad_token_id,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "include_qkv_bias": shape.query_key_value_bias,
        "weight_tying": shape.tied_head,
    }
    if shape.causal:
        written[_CAUSAL] = True
    return written


LLADA = Layout(
    blocks="model.transformer.blocks",
    top={
        "embedding": "model.transformer.wte",
        "norm": "model.transformer.ln_f",
        "head": "model.transformer.ff_out",
    },
    block={
        "attention_norm": "attn_norm",
        "attention.query": "q_proj",
        "attention.key": "k_proj",
        "attention.value": "v_proj",
        "attention.output": "attn_out",
        "mlp_norm": "ff_norm",
        "gate": "ff_proj",
        "up": "up_proj",
        "down": "ff_out",
    },
    settings=_SETTINGS,
    write=_configuration,
)
MMADA = Layout(
    LLADA.blocks,
    LLADA.top,
    LLADA.block,
    {**_SETTINGS, "model_type": "mmada", "architectures": ["MMadaModelLM"]},
    _configuration,
)
