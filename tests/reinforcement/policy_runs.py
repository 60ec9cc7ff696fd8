"""Small runs of a policy on sums: what several tests start from."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import short_rewards  # noqa: F401  registers a reward
import torch
from prepared import tiny_config
from safetensors.torch import load_file

from raymdm.config import Config
from raymdm.reinforcement.job import PolicyJob, make_policy_job
from raymdm.reinforcement.worker import PolicyWorker, train_policy
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.job import Outcome

POLICY: dict[str, Any] = {
    "group_size": 3,
    "prompts_per_step": 4,
    "sample_train_steps": 2,
    # A new model is hardly ever right; whether an answer is short is a reward that it can earn.
    "rewards": {"short": 1.0, "correct": 1.0},
    "decoding": {"response_length": 4, "steps": 4, "temperature": 1.0},
}


def policy_config(run_dir: Path, folder: Path, **sections: Any) -> Config:
    """Three rounds of four groups of three."""
    policy = {**POLICY, **sections.get("policy", {})}
    policy["decoding"] = {**POLICY["decoding"], **policy["decoding"]}
    return tiny_config(
        run_dir,
        folder,
        **{
            **sections,
            "imports": ["short_rewards"],
            "policy": policy,
            "training": {
                "steps": 3,
                "learning_rate": 1e-2,
                "warmup_steps": 0,
                "validation_rows": 6,
                **sections.get("training", {}),
            },
            "evaluation": {"decoding": {"response_length": 4}},
        },
    )


def start_policy(config: Config, resume: bool = False) -> PolicyJob:
    """The run of a configuration, with its directory made (or found again)."""
    job = make_policy_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume)
    return job


def run_policy(config: Config, resume: bool = False) -> PolicyJob:
    """The run, in this process."""
    job = start_policy(config, resume)
    assert run_in_process(job, train_policy) == Outcome("finished", job.steps)
    return job


def metrics_of(job: PolicyJob) -> pd.DataFrame:
    return pd.read_parquet(job.run.metrics)


def weights_of(job: PolicyJob) -> dict[str, torch.Tensor]:
    (file,) = job.run.model.glob("*.safetensors")
    return load_file(file)


def same_weights(one: PolicyJob, other: PolicyJob, tolerance: float = 0.0) -> None:
    """Assert that two runs ended at the same weights."""
    here, there = weights_of(one), weights_of(other)
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=tolerance, msg=name)


def cut(job: Any, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the rollouts of round `at` are there and judged, and lose the rest."""
    with monkeypatch.context() as patch:
        step = PolicyWorker._updated

        def lost(self: PolicyWorker, chosen: Any, number: int) -> Any:
            if number == at:
                raise KeyboardInterrupt
            return step(self, chosen, number)

        patch.setattr(PolicyWorker, "_updated", lost)
        with pytest.raises(KeyboardInterrupt):
            run_in_process(job, train_policy)
