"""The memory that a run was told to need is what it takes of a GPU."""

from typing import Any

import pytest
from device import ON_GPU

from raymdm.config.loading import validate
from raymdm.diagnosis import check_estimate, read_lengths, read_shape

pytestmark = ON_GPU

MEDIUM = {"hidden_size": 1024, "layers": 8, "heads": 16, "intermediate_size": 2816}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "fp32": (512, {}),
    "bf16": (512, {"training": {"precision": "bf16"}}),
    "blocks computed again": (
        512,
        {"training": {"precision": "bf16", "activation_checkpointing": True}},
    ),
    "logits in chunks": (512, {"training": {"precision": "bf16", "head_chunk": 64}}),
    "ZeRO 2": (16, {"training": {"precision": "bf16"}, "deepspeed": {"zero_stage": 2}}),
    "ZeRO 3": (16, {"training": {"precision": "bf16"}, "deepspeed": {"zero_stage": 3}}),
    "offload": (
        16,
        {
            "training": {"precision": "bf16"},
            "deepspeed": {"zero_stage": 2, "offload": "optimizer"},
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_what_torch_allocates(name: str) -> None:
    length, sections = CASES[name]
    config = validate(
        {
            "prepare": {"max_length": length},
            "model": MEDIUM,
            "cluster": {"gpus_per_worker": 1},
            **sections,
            "training": {"batch_size": 8, **sections.get("training", {})},
        }
    )
    lengths = read_lengths(config, 32768)
    check = check_estimate(config, read_shape(config, lengths), lengths)
    assert check.ratio == pytest.approx(1, abs=0.2)
