"""A sweep directory as `raymdm sweep` leaves it, with made-up scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

STEPS = 1000


def write_run(
    folder: Path,
    accuracy: float | None,
    nelbo: float | None = 0.7,
    state: str = "finished",
    message: str | None = None,
    **status: Any,
) -> Path:
    folder.mkdir(parents=True)
    seed = sum(map(ord, folder.name))
    steps = STEPS if state == "finished" else STEPS // 4
    described = {"state": state, "step": steps, "steps": STEPS, "message": message, "seconds": 12.5}
    (folder / "status.json").write_text(json.dumps(described | status))
    (folder / "config.yaml").write_text("seed: 5\n")
    if state == "finished":
        final = {"split": "test", "items": 100, "accuracy": accuracy, "nelbo_per_token": nelbo}
        content = {"step0": {"accuracy": 0.01}, "final": final}
        (folder / "scores.json").write_text(json.dumps(content))
    step = np.arange(1, steps + 1)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=steps)
    held_out = np.where(step % 100 == 0, 2 * np.exp(-step / 200) + 0.5, np.nan)
    frame = {"step": step, "epoch": 0, "loss": 2 * np.exp(-step / 200) + 0.5 + noise}
    pd.DataFrame(frame | {"validation_nelbo": held_out}).to_parquet(folder / "metrics.parquet")
    return folder


def measure_noise(sweep: Path, parts: Mapping[str, Sequence[float]], start: float = 9.0) -> None:
    """Give every run of an arm the variances (views, rates, rows) from the middle of its steps on,
    `start` before, and one more in the rows for each further seed.
    """
    for trial in json.loads((sweep / "sweep.json").read_text())["trials"]:
        file = sweep / trial["run_dir"] / "metrics.parquet"
        frame = pd.read_parquet(file)
        late = frame["step"] > STEPS / 2
        views, rates, rows = parts[trial["arm"]]
        measured = {"views": views, "rates": rates, "rows": rows + trial["seed"]}
        for name, value in measured.items():
            frame[f"variance_between_{name}"] = np.where(late, value, start)
        frame["effective_sample_size"], frame["weight_max"] = 0.8, 2.5
        frame["gradient_norm"] = np.where(late, 1.5, start)
        frame.to_parquet(file)


def configure(sweep: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Give every run of an arm this configuration, with the seed and the folder of its own."""
    for trial in json.loads((sweep / "sweep.json").read_text())["trials"]:
        own = {"seed": trial["seed"], "run_dir": trial["run_dir"]}
        file = sweep / trial["run_dir"] / "config.yaml"
        file.write_text(json.dumps({**own, **configs[trial["arm"]]}))


def write_sweep(
    folder: Path,
    scores: Mapping[str, Sequence[float | str | None]],
    settings: Sequence[Mapping[str, Any]] = ({},),
    **design: Any,
) -> Path:
    """`scores[arm][seed]` is an accuracy, the state of a run without one, or None (never tried)."""
    trials = []
    for number, setting in enumerate(settings):
        for arm, column in scores.items():
            for seed, score in enumerate(column):
                if score is None:
                    continue
                name = f"{number}-{arm}-{seed}".replace("/", "_")
                state = score if isinstance(score, str) else "finished"
                accuracy = None if isinstance(score, str) else score
                nelbo = None if accuracy is None else 1.5 - accuracy
                message = None if state == "finished" else f"{arm} <{state}> at step 250"
                write_run(folder / "runs" / name, accuracy, nelbo, state, message)
                trial = {"trial": name, "arm": arm, "seed": seed, "settings": dict(setting)}
                trial |= {"run_dir": f"runs/{name}", "state": state, "attempts": 1}
                trials.append(trial | {"message": message})
    seeds = list(range(max(map(len, scores.values()))))
    content = {"arms": list(scores), "baseline": next(iter(scores)), "seeds": seeds}
    content |= {"metric": "accuracy", "margin": None, "path": "process", "trials": trials}
    (folder / "sweep.json").write_text(json.dumps(content | design))
    return folder
