"""Dream's published layout (Qwen2's names), the causal models that have it, and our own.

Llama, Qwen2 and Qwen3 checkpoints become masked models as Dream did: attention looks both ways, a
mask token is added, and the output at i-1 goes on predicting token i. A converted Qwen2 model is a
Dream model in every respect; Llama and Qwen3, which Dream's own code cannot express, are written
under `model_type: raymdm`, in the same names.
"""

from collections.abc import Mapping
from typing import Any

from raymdm.models.layout import Configuration, Layout
from raymdm.models.shape import Family, ModelShape, RopeScaling, SpecialTokens

CAUSAL_TYPES = ("llama", "qwen2", "qwen3")
"""Values of `model_type` that are causal language models to start from."""
_SETTINGS: dict[str, Any] = {
    "model_type": "Dream",
    "architectures": ["DreamModel"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "use_mrope": False,
    "use_sliding_window": False,
}
_CAUSAL_SETTINGS: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "use_sliding_window": False,
}
_OURS = "raymdm"


def read_shape(config: Configuration) -> ModelShape:
    """The shape of a Dream configuration, or of one of ours. Raises KeyError for a missing key."""
    ours = config["model_type"] == _OURS
    return _shape(
        config,
        mask_token_id=config["mask_token_id"],
        eos_token_id=config["eos_token_id"],
        pad_token_id=config["pad_token_id"],
        rows=config["vocab_size"],
        bias=config["query_key_value_bias"] if ours else True,
        norm=config["query_key_norm"] if ours else False,
        family="raymdm" if ours else "dream",
        published=config,
    )


def read_causal_shape(config: Configuration, tokens: SpecialTokens) -> ModelShape:
    """The masked model that a causal checkpoint becomes.

    The embedding grows, in steps of 64 rows, where the mask token has none yet. Padding is the
    tokenizer's, and EOS where the checkpoint names several or none.

    Raises:
        KeyError: a key is missing.
        ValueError: attention biases in places that the backbone has none.
    """
    kind, bias = config["model_type"], bool(config.get("attention_bias", False))
    if bias and kind != "qwen2":
        raise ValueError("attention_bias is True; this backbone has no bias on attention's output")
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [tokens.eos_token_id if ends is None else ends]
    rows, highest = config["vocab_size"], max(tokens.mask_token_id, tokens.pad_token_id)
    return _shape(
        config,
        mask_token_id=tokens.mask_token_id,
        eos_token_id=tokens.eos_token_id if tokens.eos_token_id in ends else ends[0],
        pad_token_id=tokens.pad_token_id,
        rows=rows if highest < rows else 64 * (highest // 64 + 1),
        bias=kind == "qwen2",
        norm=kind == "qwen3",
        # Dream's code has no head size of its own.
        family="dream" if kind == "qwen2" and not config.get("head_dim") else "raymdm",
        # Of the causal model only what a reader of the new one may want to know.
        published={
            key: config[key]
            for key in ("max_position_embeddings", "initializer_range", "bos_token_id")
            if key in config
        },
    )


def check_causal(config: Configuration) -> str | None:
    """The setting of a causal checkpoint that the backbone lacks, if any."""
    for key, value in _CAUSAL_SETTINGS.items():
        if config.get(key, value) != value:
            return f"{key} is {config[key]!r}; this backbone has {value!r} built in"
    return None


def _shape(
    config: Configuration,
    *,
    mask_token_id: int,
    eos_token_id: int,
    pad_token_id: int,
    rows: int,
    bias: bool,
    norm: bool,
    family: Family,
    published: Configuration,
) -> ModelShape:
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim")
    # transformers 5 writes both rotary settings as one entry.
    rope = config.get("rope_parameters") or {}
    return ModelShape(
        vocabulary_size=rows,
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        intermediate_size=config["intermediate_size"],
        mask_token_id=mask_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta", 10000.0)),
        norm_epsilon=float(config["rms_norm_eps"]),
        head_size=None if head_size in (None, config["hidden_size"] // heads) else head_size,
        query_key_value_bias=bias,
        query_key_norm=norm,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        predicts_next=True,
        rope_scaling=_rope_scaling(config.get("rope_scaling") or rope),
        family=family,
        published=dict(published),
    )


def _rope_scaling(entry: Mapping[str, Any]) -> RopeScaling | None:
    """Raises ValueError for another scaling than Llama 3's."""
    kind = entry.get("rope_type", entry.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope scaling {kind!r}; this backbone has 'default' and 'llama3'")
    return RopeScaling(
        factor=float(entry["factor"]),
        low_frequency=float(entry["low_freq_factor"]),
        high_frequency=float(entry["high_freq_factor"]),
        original_length=int(entry["original_max_position_embeddings"]),
    )


def _configuration(shape: ModelShape) -> dict[str, Any]:
    scaling = shape.rope_scaling
    return {
        "vocab_size": shape.vocabulary_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "intermediate_size": shape.intermediate_size,
        "mask_token_id": shape.mask_token_id,
        "eos_token_id": shape.eos_token_id,
        "pad_token_id": shape.pad_token_id,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "tie_word_embeddings": shape.tied_head,
        "rope_scaling": None
        if scaling is None
        else {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency,
            "high_freq_factor": scaling.high_frequency,
            "original_max_position_embeddings": scaling.original_length,
        },
    }


def _our_configuration(shape: ModelShape) -> dict[str, Any]:
    return {
        **_configuration(shape),
        "head_dim": shape.head_width,
        "query_key_value_bias": shape.query_key_value_bias,
        "query_key_norm": shape.query_key_norm,
    }


DREAM = Layout(
    blocks="model.layers",
    top={"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    block={
        "attention_norm": "input_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "attention.output": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
    settings=_SETTINGS,
    write=_configuration,
)
OURS = Layout(
    DREAM.blocks,
    DREAM.top,
    DREAM.block,
    {"model_type": _OURS, "architectures": ["Backbone"], "hidden_act": "silu"},
    _our_configuration,
)
