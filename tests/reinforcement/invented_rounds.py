"""Metrics of a run that never was."""

import numpy as np
import pandas as pd


def invented(rounds: int, steps: int = 16) -> pd.DataFrame:
    noise = np.random.default_rng(0)
    done = np.arange(rounds) / max(1, rounds - 1)

    def around(curve, spread):
        return curve + spread * noise.standard_normal(rounds)

    share = np.linspace(0.2, 1, steps)
    reward = np.clip(around(0.25 + 0.4 * done, 0.08), 0, 1)
    return pd.DataFrame(
        {
            "step": np.arange(1, rounds + 1),
            "epoch": 0,
            "loss": around(0.02 * done, 0.05),
            "gradient_norm": np.abs(around(1.0, 0.2)),
            "learning_rate": 1e-5,
            "reward": reward,
            "validation_reward": np.where(np.arange(rounds) % 25 == 0, reward + 0.03, np.nan),
            "over_denoising_rate": np.clip(around(0.2 - 0.1 * done, 0.04), 0, 1),
            "reward_by_denoising_step": [list(value * share) for value in reward],
            "kl": np.abs(around(0.01 * done, 0.001)),
            "ratio_mean": around(1.0, 0.01),
            "ratio_deviation": np.abs(around(0.1, 0.02)),
            "clipped_share": np.abs(around(0.02, 0.01)),
            "skipped_groups": noise.integers(0, 4, rounds) / 4,
            "trained_rows": 256,
            "optimiser_steps": 4 * np.arange(1, rounds + 1),
            "rollouts": 64 * np.arange(1, rounds + 1),
            "rollout_tokens_per_second": around(9000.0, 300.0),
            "tokens_per_second": around(20000.0, 300.0),
            "rollout_seconds": np.abs(around(3.0, 0.3)),
            "reward_seconds": np.abs(around(0.5, 0.1)),
            "training_seconds": np.abs(around(2.0, 0.2)),
            "staleness": 0,
            "rewards_timed_out": noise.integers(0, 2, rounds),
            "rewards_crashed": 0,
            "seconds": 5.6 * np.arange(1, rounds + 1),
        }
    )
