"""The policy's keys: the paper's by default, and no choice that nothing reads."""

from typing import Any

import pytest
from pydantic import ValidationError

from raymdm.config.policy import PolicySection


def test_the_defaults_are_the_papers():
    section = PolicySection()
    assert (section.loss, section.advantage) == ("mdpo", "difference_and_future")
    assert (section.beta, section.epsilon, section.sample_train_steps) == (0.02, 0.2, 8)
    assert section.normalisation == "per_step"
    assert section.decoding.temperature == 0.4
    assert not section.after_eos
    assert section.rewards == {"correct": 1.0}


def test_rollouts_are_drawn_whatever_else_is_said_of_them():
    section = PolicySection.model_validate({"decoding": {"steps": 4}})
    assert (section.decoding.steps, section.decoding.temperature) == (4, 0.4)


@pytest.mark.parametrize(
    "keys",
    [
        {"loss": "diffu_grpo", "normalisation": "mean", "prompt_masking": 0.15},
        {"loss": "coupled_grpo", "mask_ratios": [0.5, 0.5]},
        {"group_size": 1, "normalisation": "group"},
        {"tokens": "revealed", "confidence_weights": True, "length_factor": True},
        {"decoding": {"remasking": "running_max", "confidence": "shared_order"}},
        {"decoding": {"top_p": 0.9, "guidance": 1.0}},
        {"rewards": {"correct": 1.0, "format": 0.1}},
    ],
)
def test_choices_that_fit(keys: dict[str, Any]):
    PolicySection.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"decoding": {"temperature": 0.0}}, "temperature 0 draws nothing"),
        ({"decoding": {"cache": "dual"}}, "cache dual draws tokens from approximate logits"),
        ({"decoding": {"threshold": 0.9}}, "threshold gives every rollout a number of steps"),
        ({"decoding": {"threshold": 0.9, "confidence": "shared_order"}}, "not shared_order"),
        ({"decoding": {"seed": 3}}, "give stream_seeds.decode"),
        ({"rollouts": {"staleness": 1}}, "give policy.rollouts.actors"),
        (
            {"rollouts": {"staleness": 1, "actors": 1}, "incremental_training": True},
            "staleness to 0",
        ),
        (
            {"decoding": {"block_length": 4}, "mixture_block_lengths": [4, 8]},
            "mixture_block_lengths to draw it from",
        ),
        ({"group_size": 1}, "group_size 1 has nothing to compare"),
        (
            {"group_size": 1, "normalisation": "group", "loss": "diffu_grpo"},
            "group_size 1 has nothing to compare",
        ),
        ({"prompt_masking": 0.15}, "prompt_masking is read under policy.loss diffu_grpo only"),
        ({"mask_ratios": [0.1, 0.9]}, "mask_ratios is read under policy.loss coupled_grpo only"),
        ({"loss": "coupled_grpo", "mask_ratios": [0.8, 0.2]}, "the smaller one first"),
        ({"loss": "diffu_grpo", "advantage": "single"}, "advantage is read under policy.loss mdpo"),
        ({"loss": "diffu_grpo", "tokens": "revealed"}, "tokens is read under policy.loss mdpo"),
        ({"loss": "coupled_grpo", "sample_train_steps": 1}, "sample_train_steps is read under"),
        ({"loss": "coupled_grpo", "length_factor": True}, "length_factor is read under"),
        ({"loss": "coupled_grpo", "confidence_weights": True}, "confidence_weights is read under"),
        ({"rewards": {}}, "gives no reward a weight"),
        ({"rewards": {"correct": 0.0}}, "gives no reward a weight"),
        ({"rewards": {"correct": float("nan")}}, "finite number"),
        ({"epsilon": 0.0}, "greater than 0"),
    ],
)
def test_choices_that_make_no_sense_are_refused_in_one_line(keys: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message) as found:
        PolicySection.model_validate(keys)
    assert all("\n" not in error["msg"] for error in found.value.errors())


def test_every_key_is_explained():
    for name, field in PolicySection.model_fields.items():
        assert field.description or name in ("decoding", "rollouts")
