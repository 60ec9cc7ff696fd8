"""What a run starts from: a model that fits the data's tokenizer, whole or in shards."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.models import build_model, save_model
from raymdm.models.initial import shape_from_config
from raymdm.training import RunDirectory
from raymdm.training.engine import full_state, process_group_of_one, start_engine
from raymdm.training.job import make_job
from raymdm.training.starting import (
    check_start,
    initial_model,
    model_shape,
    sharded_model,
    special_tokens,
    trained_model,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


def start(folder: Path, tmp_path: Path, **changes: object) -> Config:
    """A configuration that starts from a model of its own, with these fields of its shape."""
    config = tiny_config(tmp_path / "run", folder)
    found = read_manifest(folder)
    shape = shape_from_config(
        config.model, vocabulary_size=found.vocabulary_size, tokens=special_tokens(found)
    )
    save_model(build_model(replace(shape, **changes), 7), tmp_path / "start")  # type: ignore[arg-type]
    return tiny_config(tmp_path / "run", folder, model={"init_from": str(tmp_path / "start")})


def test_a_run_starts_from_the_folders_weights(folder: Path, tmp_path: Path, manifest: Manifest):
    config = start(folder, tmp_path)
    model = initial_model(config, model_shape(config, manifest))
    assert torch.equal(model.embedding.weight, build_model(model.shape, 7).embedding.weight)


@pytest.mark.parametrize("name", ["mask_token_id", "eos_token_id", "pad_token_id"])
def test_a_tokenizer_with_other_special_tokens_is_refused(
    folder: Path, tmp_path: Path, manifest: Manifest, name: str
):
    config = start(folder, tmp_path, **{name: 5})
    with pytest.raises(CheckpointError, match=f"its {name} is 5, the prepared data has"):
        model_shape(config, manifest)


def test_a_vocabulary_that_is_too_small_is_refused(
    folder: Path, tmp_path: Path, manifest: Manifest
):
    config = start(folder, tmp_path, vocabulary_size=manifest.vocabulary_size - 1)
    with pytest.raises(CheckpointError, match="embedding rows, but the tokenizer has"):
        model_shape(config, manifest)


def test_a_causal_model_is_refused_for_a_masked_objective(
    folder: Path, tmp_path: Path, manifest: Manifest
):
    config = start(folder, tmp_path, causal=True)
    with pytest.raises(CheckpointError, match=r"set estimator\.objective to autoregressive"):
        model_shape(config, manifest)


def test_the_mask_token_of_a_causal_start_is_the_tokenizers(
    folder: Path, tmp_path: Path, manifest: Manifest
):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=264,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            eos_token_id=manifest.eos_token_id,
            pad_token_id=None,
        )
    ).save_pretrained(tmp_path / "causal")
    config = tiny_config(tmp_path / "run", folder, model={"init_from": str(tmp_path / "causal")})
    shape = model_shape(config, manifest)
    assert shape.mask_token_id == manifest.mask_token_id
    assert shape.pad_token_id == manifest.pad_token_id
    assert shape.vocabulary_size == 264
    assert not shape.causal
    assert initial_model(config, shape).embedding.weight.shape == (264, 16)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 2}}])
def test_a_sharded_model_holds_the_weights_of_the_whole_one(
    folder: Path, tmp_path: Path, manifest: Manifest, precision: str, lora: dict[str, object]
):
    size = {"hidden_size": 16, "layers": 2, "heads": 2}
    config = tiny_config(
        tmp_path / "run",
        folder,
        model={**size, **lora},
        deepspeed={"zero_stage": 3},
        training={"precision": precision},
    )
    shape = model_shape(config, manifest)
    with process_group_of_one(gpu=False):
        model = sharded_model(config, shape)
        assert all(p.numel() == 0 for n, p in model.named_parameters() if "lora_" not in n)
        state = full_state(start_engine(model, config, 16, 1))
    whole = build_model(shape, config.seed)
    assert state is not None
    assert state.keys() == dict(whole.named_parameters()).keys()
    for name, parameter in whole.named_parameters():
        expected = parameter if precision == "fp32" else parameter.bfloat16()
        assert torch.equal(state[name], expected)


def test_a_model_is_trained_in_the_runs_precision(folder: Path, tmp_path: Path, manifest: Manifest):
    config = tiny_config(tmp_path / "run", folder, training={"precision": "bf16"})
    model = trained_model(config, model_shape(config, manifest), torch.device("cpu"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_compiling_without_a_compiler_is_refused_before_the_run(
    folder: Path, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = tiny_config(tmp_path / "run", folder, training={"compile": True})
    with pytest.raises(ConfigurationError, match="no-such-compiler"):
        check_start(config, model_shape(config, manifest))


def test_tensors_that_do_not_fit_are_named_before_the_run(folder: Path, tmp_path: Path):
    config = start(folder, tmp_path)
    path = tmp_path / "start" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_layers": 2}))
    with pytest.raises(CheckpointError, match=r"missing model\.transformer\.blocks\.1\."):
        make_job(config, RunDirectory(config.run_dir))


def test_a_starting_model_without_a_mask_token_key_is_named(
    folder: Path, tmp_path: Path, manifest: Manifest
):
    config = start(folder, tmp_path)
    path = tmp_path / "start" / "config.json"
    content = json.loads(path.read_text())
    del content["mask_token_id"]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="'mask_token_id' of a llada model is missing"):
        model_shape(config, manifest)
