"""What an estimate is made of: counts of parameters, states by stage, forwards by configuration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.config.model import LoraSection
from raymdm.diagnosis import Estimate, estimate, list_alternatives, read_lengths, read_shape
from raymdm.diagnosis.activations import logit_bytes, passing_bytes
from raymdm.diagnosis.memory import largest_forward
from raymdm.diagnosis.parameters import count_parameters
from raymdm.errors import CheckpointError, ConfigurationError, DataError
from raymdm.models import ModelShape, build_model
from raymdm.models.lora import add_adapters

SHAPE = ModelShape(
    vocabulary_size=104,
    hidden_size=64,
    layers=2,
    heads=4,
    key_value_heads=2,
    intermediate_size=176,
    mask_token_id=97,
    eos_token_id=98,
    pad_token_id=99,
)


def configured(**sections: dict[str, Any]) -> Config:
    content: dict[str, Any] = {
        "model": {"hidden_size": 256, "layers": 4, "heads": 4},
        "prepare": {"max_length": 16},
        "training": {"batch_size": 8},
    }
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values}
    return validate(content)


def estimated(vocabulary: int = 1024, **sections: dict[str, Any]) -> Estimate:
    config = configured(**sections)
    lengths = read_lengths(config, vocabulary)
    return estimate(config, read_shape(config, lengths), lengths)


def per_trained(estimate: Estimate, moment: str, part: str) -> float:
    return float(getattr(estimate.device[moment], part) / estimate.parameters.trained)


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"rank": 3},
        {"rank": 8, "targets": ["query", "key"]},
        {"rank": 2, "targets": ["down", "output"]},
    ],
)
def test_parameters_are_those_of_the_trained_model(lora: dict[str, Any]) -> None:
    section = LoraSection.model_validate(lora)
    model = build_model(SHAPE, seed=0)
    if section.rank is not None:
        add_adapters(model, section, seed=0)
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    counted = count_parameters(SHAPE, section)
    assert counted.total == sum(p.numel() for p in model.parameters())
    assert counted.trained == sum(trained)
    assert counted.largest == max(trained)
    assert counted.head == model.head.weight.numel()


def test_a_tied_head_is_counted_once() -> None:
    tied = count_parameters(replace(SHAPE, tied_head=True), LoraSection())
    assert tied.total == count_parameters(SHAPE, LoraSection()).total - tied.head


@pytest.mark.parametrize(
    ("precision", "stage", "workers", "expected"),
    [
        # weights, gradients and moments after the backward pass, bytes of each trained weight
        ("fp32", 0, 4, (4, 4, 8)),
        ("bf16", 0, 4, (2, 2, 12)),
        ("fp32", 1, 4, (4, 1, 3)),
        ("fp32", 2, 4, (4, 1, 3)),
        ("bf16", 2, 4, (2, 0.5, 3)),
        ("fp32", 3, 4, (1, 1, 3)),
        ("bf16", 3, 4, (0.5, 0.5, 3)),
        ("bf16", 3, 1, (2, 2, 12)),
    ],
)
def test_states_are_shared_as_the_stage_says(
    precision: str, stage: int, workers: int, expected: tuple[float, ...]
) -> None:
    found = estimated(
        training={"precision": precision},
        deepspeed={"zero_stage": stage},
        cluster={"workers": workers},
    )
    parts = [per_trained(found, "reduction", name) for name in ("weights", "gradients")]
    assert (*parts, per_trained(found, "reduction", "optimizer")) == pytest.approx(expected)


def test_a_gpu_takes_the_whole_bucket_and_a_cpu_what_is_written_to_it() -> None:
    bucket = {"zero_stage": 2, "overrides": {"zero_optimization": {"reduce_bucket_size": 2**30}}}
    on_cpu = estimated(deepspeed=bucket)
    on_gpu = estimated(deepspeed=bucket, cluster={"gpus_per_worker": 1})
    assert per_trained(on_cpu, "backward", "buffers") == 4
    assert on_gpu.device["backward"].buffers == 4 * 2**30


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloaded_states_are_the_hosts(stage: int) -> None:
    found = estimated(
        deepspeed={"zero_stage": stage, "offload": "optimizer"},
        training={"precision": "bf16"},
        cluster={"gpus_per_worker": 1, "workers": 2},
    )
    assert all(parts.optimizer == 0 for parts in found.device.values())
    assert found.device["update"].gradients == 0
    # fp32 weights and two moments, and the fp32 gradients, of half of the weights
    assert found.host["training"].optimizer / found.parameters.trained == 6
    assert found.host["training"].gradients / found.parameters.trained >= 2


def test_offloaded_weights_are_the_hosts_too() -> None:
    gpus = {"gpus_per_worker": 1, "workers": 2}
    found = estimated(deepspeed={"zero_stage": 3, "offload": "parameters"}, cluster=gpus)
    assert all(parts.weights == 0 for parts in found.device.values())
    assert found.host["training"].weights == 2 * found.parameters.total


def test_on_a_cpu_offloading_only_moves_within_the_same_memory() -> None:
    found = estimated(deepspeed={"zero_stage": 2, "offload": "optimizer"})
    assert found.host == {}
    assert per_trained(found, "update", "optimizer") == 12


def test_of_frozen_weights_there_are_neither_gradients_nor_moments() -> None:
    found = estimated(model={"lora": {"rank": 4}})
    parameters = found.parameters
    assert parameters.trained < parameters.total / 10
    update = found.device["update"]
    assert update.weights == 4 * parameters.total
    assert (update.gradients, update.optimizer) == (4 * parameters.trained, 8 * parameters.trained)


@pytest.mark.parametrize(
    ("sections", "rows", "views", "predicted", "count"),
    [
        ({}, 8, 1, 8 * 16, 1),
        ({"cluster": {"workers": 2}}, 4, 1, 4 * 16, 1),
        ({"training": {"micro_batch_size": 3}}, 3, 1, 3 * 16, 3),
        ({"training": {"micro_batch_size": 50}}, 8, 1, 8 * 16, 1),
        ({"estimator": {"masker": {"kind": "mirror", "views": 2}}}, 8, 2, 16 * 16, 1),
        ({"estimator": {"masker": {"kind": "complement", "views": 2}}}, 8, 2, 8 * 16, 1),
        ({"estimator": {"objective": "autoregressive"}}, 8, 1, 8 * 16, 1),
    ],
)
def test_the_largest_forward(
    sections: dict[str, Any], rows: int, views: int, predicted: int, count: int
) -> None:
    config = configured(**sections)
    forward = largest_forward(config, read_lengths(config, 1024))
    assert (forward.rows, forward.views, forward.predicted) == (rows, views, predicted)
    assert (forward.count, forward.tokens) == (count, rows * views * 16)


def test_several_forwards_keep_gradients_from_one_to_the_next() -> None:
    once = estimated()
    often = estimated(training={"micro_batch_size": 2})
    assert once.device["logits"].gradients == 0
    assert per_trained(often, "logits", "gradients") == 4
    assert often.device["logits"].activations == once.device["logits"].activations / 4


def test_checkpointing_and_chunks_take_less() -> None:
    plain = estimated()
    recomputed = estimated(training={"activation_checkpointing": True})
    chunked = estimated(training={"head_chunk": 4})
    assert recomputed.device["logits"].activations < plain.device["logits"].activations / 5
    assert chunked.device["logits"].logits == 4 * 1024 * 4
    assert plain.device["logits"].logits == 8 * 16 * 1024 * 12
    assert logit_bytes(8, 1024, 2, chunk=8) == logit_bytes(8, 1024, 2, chunk=None)


def test_a_probed_density_needs_a_forward_of_its_own_batch() -> None:
    probe = {"rows": 64, "batch_size": 64}
    importance = {"time": {"sampler": "importance"}, "density": {"probe": probe}}
    found = estimated(8192, estimator=importance, prepare={"max_length": 64})
    assert "probe" not in estimated().device
    # Logits and log-probabilities of 64 rows; training holds three copies of those of 8.
    assert found.device["probe"].logits == 64 * 64 * 8192 * 8
    assert found.device["probe"].optimizer == 0
    assert found.peak == "probe"
    read = {**importance, "density": {"file": "density.json"}}
    assert "probe" not in estimated(estimator=read).device


def test_passing_through_takes_less_than_keeping() -> None:
    found = estimated()
    config = configured()
    shape = read_shape(config, read_lengths(config, 1024))
    assert passing_bytes(shape, 8 * 16, 4) < found.device["logits"].activations


def test_the_peak_is_the_largest_moment_and_the_total_its_sum() -> None:
    found = estimated()
    parts = found.device[found.peak]
    assert found.device_bytes == parts.total == max(p.total for p in found.device.values())
    names = ("weights", "gradients", "optimizer", "buffers", "activations", "logits")
    assert parts.total == sum(getattr(parts, name) for name in names)


def test_rows_and_vocabulary_come_from_prepared_data(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "prepared")
    config = tiny_config(tmp_path / "run", folder)
    lengths = read_lengths(config)
    assert (lengths.row, lengths.response) == (9, 3)
    assert lengths.source.endswith("manifest.json")
    shape = read_shape(config, lengths)
    assert shape.vocabulary_size == 264  # 262 tokens, rounded up to a multiple of 8
    asked = read_lengths(config, 2000)
    assert (asked.vocabulary_size, asked.row, asked.manifest) == (2000, 512, None)


@pytest.mark.parametrize(
    ("sections", "row", "response"),
    [
        ({"data": {"pad_supervision": "eos"}}, 12, 12),
        ({"estimator": {"eligible": "response_and_syntax"}}, 9, 9),
    ],
)
def test_more_than_the_response_may_be_predicted(
    tmp_path: Path, sections: dict[str, Any], row: int, response: int
) -> None:
    folder = write_prepared(tmp_path / "prepared")
    lengths = read_lengths(tiny_config(tmp_path / "run", folder, **sections))
    assert (lengths.row, lengths.response) == (row, response)


def test_a_broken_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        read_lengths(configured(data={"folder": str(tmp_path)}))


def test_a_model_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    config = configured(model={"init_from": str(tmp_path)})
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_shape(config, read_lengths(config, 1024))


def test_overrides_that_contradict_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"zero_optimization\.stage"):
        estimated(deepspeed={"overrides": {"zero_optimization": {"stage": 1}}})


def test_alternatives_keep_the_rest_of_the_run() -> None:
    config = configured(training={"micro_batch_size": 4}, deepspeed={"zero_stage": 2})
    lengths = read_lengths(config, 1024)
    shape = read_shape(config, lengths)
    found = {other.name: other for other in list_alternatives(config, shape, lengths)}
    assert found["ZeRO 2"].configured == estimate(config, shape, lengths)
    assert found["ZeRO 2"].configured.forward.rows == 4
    assert found["ZeRO 2"].least.forward.rows == 1
    for other in found.values():
        assert other.least.device_bytes <= other.recomputed.device_bytes
    adapted, whole = (found[n].least.parameters for n in ("bf16, LoRA rank 16", "bf16"))
    assert adapted.trained < whole.trained
