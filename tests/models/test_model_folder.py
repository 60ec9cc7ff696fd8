"""Model folders: what is written can be read here and elsewhere; what does not fit is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raymdm.errors import CheckpointError
from raymdm.models import ModelShape, build_model, load_model, load_shape, save_model

SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=2,
    intermediate_size=40,
    mask_token_id=22,
    eos_token_id=21,
    pad_token_id=23,
    rope_theta=5e5,
    norm_epsilon=1e-6,
)
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(build_model(SHAPE, 4), tmp_path / "model")
    return tmp_path / "model"


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_round_trip_loses_nothing(folder: Path):
    model, again = build_model(SHAPE, 4), load_model(folder)
    assert again.shape == SHAPE
    assert load_shape(folder) == SHAPE
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    ids = torch.arange(9)[None]
    assert torch.equal(model(ids), again(ids))


def test_a_causal_model_stays_causal_and_no_other_folder_says_anything_of_it(tmp_path: Path):
    for causal in (True, False):
        model = build_model(replace(SHAPE, causal=causal), 4)
        save_model(model, tmp_path)
        again = load_model(tmp_path)
        assert again.shape.causal == causal
        ids = torch.arange(9)[None]
        assert torch.equal(model(ids), again(ids))
        assert ("raymdm_causal" in json.loads((tmp_path / "config.json").read_text())) == causal


def test_the_names_written_are_the_published_ones(folder: Path):
    block = ["attn_norm", "q_proj", "k_proj", "v_proj", "attn_out"]
    block += ["ff_norm", "ff_proj", "up_proj", "ff_out"]
    wanted = {f"model.transformer.{name}.weight" for name in ("wte", "ln_f", "ff_out")}
    wanted |= {f"model.transformer.blocks.{i}.{name}.weight" for i in (0, 1) for name in block}
    assert set(load_file(folder / "model.safetensors")) == wanted


def test_a_full_state_may_be_given_for_a_sharded_model(tmp_path: Path):
    state = build_model(SHAPE, 9).state_dict()
    save_model(build_model(SHAPE, 4), tmp_path, state)
    assert torch.equal(load_model(tmp_path).head.weight, state["head.weight"])


def test_the_type_asked_for_is_the_type_loaded(folder: Path):
    assert {p.dtype for p in load_model(folder, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_weights_in_several_files_are_one_model(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for part in (0, 1):
        save_file(
            {name: tensors[name] for name in names[part::2]},
            folder / f"model-0000{part + 1}-of-00002.safetensors",
        )
    assert torch.equal(load_model(folder).head.weight, build_model(SHAPE, 4).head.weight)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: t.pop("model.transformer.ln_f.weight"),
            r"missing model\.transformer\.ln_f\.weight",
        ),
        (lambda t: t.update(stranger=torch.ones(2)), "extra stranger"),
        (
            lambda t: t.update({"model.transformer.wte.weight": torch.ones(3, 16)}),
            r"model\.transformer\.wte\.weight is \(3, 16\), expected \(24, 16\)",
        ),
        (lambda t: t.clear(), "missing .* and 16 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, change: Callable[[Tensors], object], reason: str
):
    change_tensors(folder, change)
    with pytest.raises(CheckpointError, match=reason):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("include_bias", True), ("rope", False), ("activation_type", "gelu"), ("alibi", True)],
)
def test_another_architecture_is_named(folder: Path, key: str, value: object):
    change_config(folder, **{key: value})
    with pytest.raises(CheckpointError, match=f"config.json: {key} is {value!r}"):
        load_model(folder)


def test_a_missing_key_is_named(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    del config["d_model"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'d_model'"):
        load_shape(folder)


def test_keys_that_published_configurations_leave_out_have_their_published_meaning(folder: Path):
    change_config(folder, n_kv_heads=None, mlp_hidden_size=None, mlp_ratio=3, embedding_size=None)
    wanted = replace(SHAPE, key_value_heads=4, intermediate_size=48)
    assert load_shape(folder) == wanted


def test_a_folder_without_weights_or_with_pickled_ones_is_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are not loaded"):
        load_model(folder)


def test_broken_files_are_named(folder: Path):
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no readable model configuration"):
        load_model(folder)


def test_weights_may_share_the_embedding_and_have_biases(tmp_path: Path):
    shape = replace(SHAPE, tied_head=True, query_key_value_bias=True)
    model = build_model(shape, 4)
    save_model(model, tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert "model.transformer.ff_out.weight" not in written
    assert "model.transformer.blocks.0.q_proj.bias" in written
    again = load_model(tmp_path)
    assert again.shape == shape
    assert again.head.weight is again.embedding.weight
    assert torch.equal(model(torch.arange(9)[None]), again(torch.arange(9)[None]))


def test_a_head_that_is_stored_beside_the_embedding_it_shares_is_left_out(tmp_path: Path):
    save_model(build_model(replace(SHAPE, tied_head=True), 4), tmp_path)
    head = torch.zeros(24, 16)
    change_tensors(tmp_path, lambda t: t.update({"model.transformer.ff_out.weight": head}))
    assert load_model(tmp_path).head.weight.abs().sum() > 0


def test_keys_without_a_meaning_here_are_written_back(folder: Path, tmp_path: Path):
    change_config(folder, num_vq_tokens=1024, model_type="mmada", vocab_size=20)
    save_model(load_model(folder), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_vq_tokens"], config["model_type"], config["vocab_size"]) == (
        1024,
        "mmada",
        20,
    )
    assert load_shape(tmp_path).vocabulary_size == 24


def test_weights_are_mapped_not_copied(folder: Path):
    """Workers of a node share the pages of a file until they write."""
    tensor = load_model(folder).embedding.weight
    file = next(folder.glob("*.safetensors"))
    assert str(file) in Path("/proc/self/maps").read_text()
    before = tensor.detach().clone()
    with torch.no_grad():
        tensor.zero_()
    assert torch.equal(load_model(folder).embedding.weight, before)


def test_files_can_be_read_by_others(folder: Path):
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_a_folder_that_needs_code_of_its_own_is_named_with_the_flag_there_is(folder: Path):
    change_config(folder, model_type="strange", auto_map={"AutoModel": "strange.Model"})
    with pytest.raises(CheckpointError, match=r"model_type is 'strange'.*code of its own.*trust"):
        load_model(folder)


def test_a_model_type_that_is_missing_is_named(folder: Path):
    change_config(folder, model_type=None)
    with pytest.raises(CheckpointError, match="model_type is None; raymdm loads llada"):
        load_shape(folder)
