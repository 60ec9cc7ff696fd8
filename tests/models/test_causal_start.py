"""A causal Llama, Qwen2 or Qwen3 becomes a masked model: attention both ways, a mask token."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raymdm.errors import CheckpointError
from raymdm.models import SpecialTokens, load_model, load_shape, save_model

TOKENS = SpecialTokens(mask_token_id=101, eos_token_id=3, pad_token_id=4)
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {"rope_parameters": STRETCHED},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
}


def causal_model(kind: str, folder: Path, **keys: Any) -> nn.Module:
    """A model of the transformers library with decisive weights, written to the folder."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **{"eos_token_id": 3, **KINDS[kind], **keys},
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 1.0 * (parameter.ndim == 1), 0.3, generator=generator)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_computes_what_the_causal_model_would_if_it_looked_both_ways(
    kind: str, tied: bool, tmp_path: Path
):
    """Its output at i-1 predicts token i, as before."""
    original = causal_model(kind, tmp_path, tie_word_embeddings=tied)
    model = load_model(tmp_path, tokens=TOKENS)
    ids = torch.arange(40).view(2, 20) * 7 % 100
    with torch.no_grad():
        wanted = original(ids, attention_mask=torch.zeros(2, 1, 20, 20)).logits
        logits = model(ids)
    torch.testing.assert_close(logits[:, 1:, :100], wanted[:, :-1], rtol=0, atol=1e-5)
    assert model.shape.tied_head == tied


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_it_is_written_as_a_masked_model_and_read_without_the_tokenizer(
    kind: str, tied: bool, tmp_path: Path
):
    causal_model(kind, tmp_path / "causal", tie_word_embeddings=tied)
    model = load_model(tmp_path / "causal", tokens=TOKENS)
    save_model(model, tmp_path / "masked")
    again = load_model(tmp_path / "masked")
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids), again(ids))
    assert again.shape == model.shape
    # Dream's own code can express a Qwen2 model, and neither of the others.
    written = json.loads((tmp_path / "masked" / "config.json").read_text())["model_type"]
    assert written == ("Dream" if kind == "Qwen2" else "raymdm")


def test_the_mask_token_gets_the_mean_of_all_rows_and_the_old_rows_stay(tmp_path: Path):
    original = causal_model("Qwen2", tmp_path)
    model = load_model(tmp_path, tokens=TOKENS)
    old = original.get_input_embeddings().weight
    new = model.embedding.weight
    assert new.shape == (128, 32)
    assert torch.equal(new[:100], old)
    torch.testing.assert_close(new[101], old.mean(0))
    assert model.shape.mask_token_id == 101


def test_a_mask_token_within_the_vocabulary_needs_no_new_row(tmp_path: Path):
    causal_model("Qwen2", tmp_path)
    shape = load_shape(tmp_path, SpecialTokens(mask_token_id=99, eos_token_id=3, pad_token_id=4))
    assert (shape.vocabulary_size, shape.mask_token_id) == (100, 99)


def test_any_of_several_ends_may_be_the_tokenizers(tmp_path: Path):
    causal_model("Llama", tmp_path, eos_token_id=[9, 3])
    assert load_shape(tmp_path, TOKENS).eos_token_id == 3
    other = SpecialTokens(mask_token_id=101, eos_token_id=8, pad_token_id=4)
    assert load_shape(tmp_path, other).eos_token_id == 9


def test_without_a_tokenizer_it_is_refused(tmp_path: Path):
    causal_model("Llama", tmp_path)
    with pytest.raises(CheckpointError, match="causal llama model has no mask token"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {**STRETCHED, "rope_type": "yarn"}}, "rope scaling 'yarn'"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"num_attention_heads": 0}, "a value of a llama model is wrong"),
        ({"hidden_size": "32"}, "a value of a llama model is wrong"),
        ({"eos_token_id": []}, "a value of a llama model is wrong"),
    ],
)
def test_what_the_backbone_lacks_is_named(keys: dict[str, Any], reason: str, tmp_path: Path):
    causal_model("Llama", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(CheckpointError, match=reason):
        load_model(tmp_path, tokens=TOKENS)


def test_a_qwen2_with_heads_of_their_own_size_is_read_again(tmp_path: Path):
    """Dream's layout has no key for it."""
    causal_model("Qwen2", tmp_path / "causal")
    config = json.loads((tmp_path / "causal" / "config.json").read_text()) | {"head_dim": 8}
    (tmp_path / "causal" / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path / "causal", tokens=TOKENS)
    save_model(model, tmp_path / "masked")
    assert load_shape(tmp_path / "masked") == model.shape


def test_old_configurations_leave_out_what_was_then_usual(tmp_path: Path):
    causal_model("Llama", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"eos_token_id": None, "pad_token_id": 0}
    del config["rope_parameters"]
    path.write_text(json.dumps(config))
    shape = load_shape(tmp_path, TOKENS)
    assert (shape.rope_theta, shape.eos_token_id, shape.pad_token_id) == (10000.0, 3, 4)
