"""The estimate against the peak memory of real runs, and what those runs are.

One more such run is in `tests/test_doctor.py`.
"""

from pathlib import Path
from typing import Any

import pytest

from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.diagnosis import check_estimate, read_lengths, read_shape
from raymdm.diagnosis.checking import Check, worst_case
from raymdm.diagnosis.lengths import Lengths
from raymdm.diagnosis.memory import largest_forward
from raymdm.errors import RunError

WITHIN = 0.2
MEDIUM = {"hidden_size": 384, "layers": 6, "heads": 6, "intermediate_size": 1056}


def configured(length: int, **sections: dict[str, Any]) -> Config:
    content: dict[str, Any] = {"prepare": {"max_length": length}, "training": {"batch_size": 8}}
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values}
    return validate(content)


def checked(vocabulary: int, length: int, **sections: dict[str, Any]) -> Check:
    config = configured(length, **sections)
    lengths = read_lengths(config, vocabulary)
    return check_estimate(config, read_shape(config, lengths), lengths)


STATES = [{"zero_stage": stage} for stage in range(4)]
OFFLOADED = [
    {"zero_stage": 2, "offload": "optimizer"},
    {"zero_stage": 3, "offload": "parameters"},
]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("deepspeed", STATES + OFFLOADED, ids=str)
def test_states_of_every_stage(deepspeed: dict[str, Any], precision: str) -> None:
    """Short rows: what is held of the weights decides."""
    training = {"precision": precision, "threads_per_worker": 2}
    check = checked(8192, 8, model=MEDIUM, deepspeed=deepspeed, training=training)
    assert check.ratio == pytest.approx(1, abs=WITHIN)
    assert check.estimate.peak in ("reduction", "update")


LORA = {"lora": {"rank": 16}}
FEW = {"lora": {"rank": 16, "targets": ["query", "value"]}}
MIRROR = {"masker": {"kind": "mirror", "views": 2}}
ROTATED = {"masker": {"kind": "rotation", "views": 4}, "eligible": "response_and_syntax"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocabulary", "length", "sections"),
    [
        (8192, 128, {"training": {"precision": "bf16"}}),
        (512, 256, {"training": {"activation_checkpointing": True}}),
        (512, 256, {"training": {"activation_checkpointing": True, "precision": "bf16"}}),
        (8192, 128, {"training": {"head_chunk": 64}}),
        (8192, 128, {"training": {"head_chunk": 64, "precision": "bf16"}}),
        (512, 128, {"model": {"intermediate_size": 4096, "layers": 2}}),
        (8192, 128, {"model": LORA}),
        (512, 256, {"model": FEW, "training": {"activation_checkpointing": True}}),
        (8192, 128, {"model": LORA, "training": {"precision": "bf16"}}),
        (512, 256, {"model": {"key_value_heads": 2}}),
        (8192, 16, {"training": {"micro_batch_size": 2}, "deepspeed": {"zero_stage": 2}}),
        (512, 128, {"estimator": MIRROR}),
        (512, 64, {"estimator": ROTATED}),
        (512, 256, {"estimator": {"objective": "autoregressive"}}),
    ],
    ids=str,
)
def test_activations_and_logits(
    vocabulary: int, length: int, sections: dict[str, dict[str, Any]]
) -> None:
    given = {**sections, "model": {**MEDIUM, **sections.get("model", {})}}
    given["training"] = {"threads_per_worker": 2, **sections.get("training", {})}
    check = checked(vocabulary, length, **given)
    assert check.ratio == pytest.approx(1, abs=WITHIN)


@pytest.mark.parametrize(
    "estimator",
    [
        {"masker": {"kind": "count", "views": 3}},
        {"masker": {"kind": "complement", "views": 2}, "control": {"kind": "ema"}},
        {"time": {"sampler": "importance"}, "normalize": "token"},
        {"time": {"stratify": "strata", "strata": 4}},
        {"delimiters": {"rates": "exact"}, "eligible": "response_and_syntax"},
        {"objective": "autoregressive"},
    ],
    ids=str,
)
def test_the_checked_run_is_as_large_and_a_valid_configuration(
    tmp_path: Path, estimator: dict[str, Any]
) -> None:
    config = configured(
        16,
        estimator=estimator,
        training={"batch_size": 24, "micro_batch_size": 3},
        cluster={"workers": 2},
        wandb={"mode": "online"},
    )
    lengths = Lengths(100, 16, 10, "")
    run = worst_case(config, lengths, tmp_path)
    validate(run.model_dump())
    given, made = largest_forward(config, lengths), largest_forward(run, lengths)
    assert (made.rows, made.views, made.length) == (given.rows, given.views, given.length)
    assert (given.count, made.count) == (4, 2)
    assert run.cluster.workers == 1
    assert run.wandb.mode == "disabled"


@pytest.mark.slow
def test_a_run_that_fails_says_why() -> None:
    contradiction = {"overrides": {"zero_optimization": {"stage": 1}}}
    with pytest.raises(RunError, match=r"process failed: deepspeed\.overrides sets"):
        checked(64, 8, deepspeed=contradiction)
