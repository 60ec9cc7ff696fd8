"""A policy's run in one process: what it leaves, and what must not change its result."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from policy_runs import cut, metrics_of, policy_config, run_policy, same_weights, start_policy
from prepared import write_prepared

from raymdm.config.loading import validate
from raymdm.errors import CheckpointError, ConfigurationError, DataError
from raymdm.reinforcement import greedy
from raymdm.reinforcement import rollouts as rollouts_module
from raymdm.reinforcement.judging import Judged
from raymdm.reinforcement.kept_rounds import KeptRounds
from raymdm.reinforcement.round_maker import RoundMaker
from raymdm.reinforcement.worker import PolicyWorker, train_policy
from raymdm.training import run_in_process
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one

COLUMNS = ("reward", "loss", "gradient_norm", "kl", "over_denoising_rate", "trained_rows")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", references=True)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All rows in one forward."""
    return run_policy(policy_config(tmp_path_factory.mktemp("runs") / "undisturbed", folder))


def test_a_run_leaves_a_model_its_columns_and_no_rollouts(undisturbed: Any) -> None:
    metrics = metrics_of(undisturbed)
    assert metrics["step"].tolist() == [1, 2, 3]
    assert metrics["rollouts"].tolist() == [12, 24, 36]
    assert metrics["optimiser_steps"].tolist() == [1, 2, 3]
    assert np.isfinite(metrics[list(COLUMNS)]).all().all()
    assert (metrics["trained_rows"] <= 4 * 3 * 2).all()
    assert metrics["trained_rows"].max() > 0
    assert [len(rewards) for rewards in metrics["reward_by_denoising_step"]] == [4, 4, 4]
    last = metrics["reward_by_denoising_step"].iloc[-1][-1]
    assert last == pytest.approx(metrics["reward"].iloc[-1])
    assert np.isfinite(metrics["validation_reward"].iloc[-1])
    assert (undisturbed.run.model / "model.safetensors").is_file()
    assert not (undisturbed.run.path / "rollouts").exists()
    status = undisturbed.run.status()
    # Every rollout took four forwards; each trained row one of the policy and one of the reference.
    trained = int(metrics["trained_rows"].sum())
    assert status["backwards"] == trained
    assert status["forwards"] == 36 * 4 + 2 * trained


def test_the_first_ratios_are_one_and_the_first_kl_is_zero(undisturbed: Any) -> None:
    """The policy that is scored is the one that rolled out, and the reference its start."""
    metrics = metrics_of(undisturbed)
    np.testing.assert_allclose(metrics["ratio_mean"], 1.0, atol=1e-5)
    np.testing.assert_allclose(metrics["ratio_deviation"], 0.0, atol=1e-3)
    assert metrics["kl"].iloc[0] == 0
    assert metrics["kl"].iloc[-1] > 0


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"micro_batch_size": 5}},
        {"policy": {"rollouts": {"batch_size": 5}, "samples": 2}},
        {"deepspeed": {"zero_stage": 2}, "training": {"micro_batch_size": 5}},
        {"training": {"activation_checkpointing": True}},
    ],
    ids=["micro-batches", "batches of rollouts", "ZeRO 2", "blocks computed again"],
)
def test_how_it_is_computed_changes_nothing(
    folder: Path, tmp_path: Path, undisturbed: Any, sections: dict[str, Any]
) -> None:
    job = run_policy(policy_config(tmp_path / "run", folder, **sections))
    for column in COLUMNS:
        np.testing.assert_allclose(
            metrics_of(job)[column], metrics_of(undisturbed)[column], atol=2e-4, err_msg=column
        )
    same_weights(job, undisturbed, 1e-3)


def test_rewards_grow(folder: Path, tmp_path: Path) -> None:
    """Of what the policy can learn within a few rounds: short answers."""
    job = run_policy(
        policy_config(
            tmp_path / "run",
            folder,
            policy={"group_size": 8, "prompts_per_step": 8, "beta": 0.0, "rewards": {"short": 1.0}},
            training={"steps": 16, "learning_rate": 2e-2},
        )
    )
    reward = metrics_of(job)["reward"]
    assert reward.iloc[-3:].mean() > reward.iloc[:3].mean() + 0.05


@pytest.mark.parametrize("checkpoint_every", [0, 1])
def test_a_run_cut_short_goes_on_without_rolling_out_again(
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    monkeypatch: pytest.MonkeyPatch,
    checkpoint_every: int,
) -> None:
    training = {"checkpoint_every": checkpoint_every}
    config = policy_config(tmp_path / "run", folder, training=training)
    cut(start_policy(config), 2, monkeypatch)
    rolled: list[int] = []
    roll = rollouts_module.roll

    def counted(model: Any, asks: Any, batch_size: int) -> Any:
        rolled.append(len(asks))
        return roll(model, asks, batch_size)

    monkeypatch.setattr(rollouts_module, "roll", counted)
    job = run_policy(config, resume=True)
    same_weights(job, undisturbed)
    kept = ["step", "reward", "loss", "rollouts", "trained_rows"]
    pd.testing.assert_frame_equal(metrics_of(job)[kept], metrics_of(undisturbed)[kept])
    # What was left to decode are the held-out prompts.
    assert [count for count in rolled if count] == [6]


def test_a_broken_file_of_rollouts_is_rolled_out_again(
    folder: Path, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = policy_config(tmp_path / "run", folder)
    cut(start_policy(config), 1, monkeypatch)
    files = sorted((tmp_path / "run" / "rollouts").glob("*/*.safetensors"))
    assert len(files) == 8
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[5].unlink()
    same_weights(run_policy(config, resume=True), undisturbed)


def test_a_checkpoint_ends_the_keeping_of_earlier_rollouts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = policy_config(tmp_path / "run", folder, training={"checkpoint_every": 2})
    cut(start_policy(config), 2, monkeypatch)
    assert [
        path.name for path in KeptRounds(start_policy(config, True).run, None).path.iterdir()
    ] == ["00000002"]


@pytest.mark.parametrize("loss", ["mdpo", "diffu_grpo", "coupled_grpo"])
def test_later_updates_have_ratios_of_their_own(folder: Path, tmp_path: Path, loss: str) -> None:
    policy: dict[str, Any] = {"loss": loss, "updates": 2}
    if loss == "mdpo":
        policy["normalisation"] = "group"
    else:
        policy |= {"normalisation": "mean", "sample_train_steps": 8}
    job = run_policy(policy_config(tmp_path / loss, folder, policy=policy, training={"steps": 2}))
    metrics = metrics_of(job)
    assert metrics["optimiser_steps"].tolist() == [2, 4]
    assert (metrics["ratio_deviation"] > 1e-4).all()


def test_adapters_are_trained_against_the_model_without_them(folder: Path, tmp_path: Path) -> None:
    """As with a frozen copy of the whole model, were the adapters not all that is trained."""
    config = policy_config(tmp_path / "run", folder, model={"lora": {"rank": 2}})
    metrics = metrics_of(run_policy(config))
    assert metrics["kl"].iloc[0] == 0
    assert metrics["kl"].iloc[-1] > 0


def test_the_seed_decides(folder: Path, tmp_path: Path, undisturbed: Any) -> None:
    again = run_policy(policy_config(tmp_path / "again", folder))
    same_weights(again, undisturbed)
    other = run_policy(policy_config(tmp_path / "other", folder, stream_seeds={"decode": 7}))
    assert not np.array_equal(metrics_of(other)["reward"], metrics_of(again)["reward"])


def test_prompts_are_those_of_the_list(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text("".join(f'{{"number": {number}}}\n' for number in (3, 60, 7, 8)))
    config = policy_config(tmp_path / "run", folder, policy={"prompts": str(file)})
    job = start_policy(config)
    assert job.order.steps_per_epoch == 1
    with process_group_of_one(gpu=False):
        worker = PolicyWorker(job, Checkpoints.direct(config, job.run))
        assert worker.step() is None
        numbers = [group.place.item.number for group in worker.rounds.make(1).groups]
    assert sorted(numbers) == [3, 7, 8, 60]


def test_incremental_training_renews_its_prompts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[int] = []
    renew = RoundMaker._renew

    def noted(self: RoundMaker, weights: int) -> None:
        renewed.append(weights)
        renew(self, weights)

    monkeypatch.setattr(RoundMaker, "_renew", noted)
    file = tmp_path / "list.jsonl"
    file.write_text("".join(f'{{"number": {number}}}\n' for number in range(8)))
    policy = {"incremental_training": True, "prompts": str(file)}
    run_policy(policy_config(tmp_path / "run", folder, policy=policy))
    assert renewed[0] == 0
    assert len(renewed) >= 2


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"policy": {"rewards": {"right": 1.0}}}, ConfigurationError, "unknown reward 'right'"),
        ({"policy": {"prompts": "no-such-list.jsonl"}}, DataError, "cannot be read"),
        ({"policy": {"prompts_per_step": 100}}, DataError, "prompts_per_step 100"),
        (
            {"policy": {"mixture_block_lengths": [2], "decoding": {"steps": 3}}},
            ConfigurationError,
            "cannot be shared",
        ),
    ],
    ids=["reward", "list", "prompts", "blocks"],
)
def test_what_does_not_fit_is_said_at_once(
    folder: Path, tmp_path: Path, sections: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        start_policy(policy_config(tmp_path / "run", folder, **sections))


def test_decoding_of_held_out_prompts_is_checked_at_once(folder: Path, tmp_path: Path) -> None:
    config = policy_config(tmp_path / "run", folder)
    decoding = {"response_length": 4, "steps": 3, "block_length": 2}
    content = config.model_dump() | {"evaluation": {"decoding": decoding}}
    with pytest.raises(ConfigurationError, match="cannot be shared"):
        start_policy(validate(content))


def test_rewards_that_become_infinite_end_the_run_as_diverged(folder: Path, tmp_path: Path) -> None:
    config = policy_config(tmp_path / "run", folder, training={"learning_rate": 1e30})
    outcome = run_in_process(start_policy(config), train_policy)
    assert outcome.state == "diverged"
    assert outcome.message is not None
    assert "last good checkpoint: none" in outcome.message


def test_rewards_are_told_apart(undisturbed: Any) -> None:
    metrics = metrics_of(undisturbed)
    parts = metrics["reward_of_short"] + metrics["reward_of_correct"]
    np.testing.assert_allclose(parts, metrics["reward"])
    np.testing.assert_allclose(metrics["reward_of_correct"], metrics["accuracy"])
    for column, step in (("first_step_reward", 0), ("middle_step_reward", 2)):
        steps = metrics["reward_by_denoising_step"]
        np.testing.assert_allclose(metrics[column], [rewards[step] for rewards in steps])


def test_prompts_that_are_right_on_the_way_and_wrong_at_the_end_are_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = policy_config(tmp_path / "run", folder)
    job = start_policy(config)
    with process_group_of_one(gpu=False):
        worker = PolicyWorker(job, Checkpoints.direct(config, job.run))
        items = job.items()[:3]
        correct = [torch.tensor([steps]).double() for steps in ([0, 1, 0], [0, 1, 1], [0, 0, 0])]
        judged = Judged(correct, correct, {}, 0, 0, 0)
        monkeypatch.setattr(greedy, "judge", lambda *given: judged)
        assert worker.rounds.greedy.over_denoising(items, 0) == [items[0].number]
        assert worker.rounds.greedy.mean_reward(items, 0) == pytest.approx(1 / 3)


def test_rows_without_references_cannot_be_rewarded(tmp_path: Path) -> None:
    plain = write_prepared(tmp_path / "plain")
    with pytest.raises(DataError, match="train_references"):
        start_policy(policy_config(tmp_path / "run", plain))


def test_a_start_that_changed_is_not_resumed(
    folder: Path, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy is held to it."""
    start = tmp_path / "start"
    start.symlink_to(undisturbed.run.model)
    config = policy_config(
        tmp_path / "run", folder, model={"init_from": str(start)}, training={"checkpoint_every": 1}
    )
    cut(start_policy(config), 1, monkeypatch)
    other = run_policy(policy_config(tmp_path / "other", folder, stream_seeds={"decode": 7}))
    start.unlink()
    start.symlink_to(other.run.model)
    with pytest.raises(CheckpointError, match="not the weights"):
        run_in_process(start_policy(config, resume=True), train_policy)
