"""Read what runs left behind: a sweep directory, or several run directories.

Every planned run becomes one row, also one that diverged, failed or was never started: what is
missing is part of the answer.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from raymdm.errors import ConfigurationError, DataError
from raymdm.verdict.item_noise import ItemScores, item_scores
from raymdm.verdict.outcomes import one_row_per_run
from raymdm.verdict.run_files import (
    CURVE_COLUMNS,
    existing_folder,
    read_curves,
    read_item_table,
    read_mapping,
    read_row,
    seed_of,
)
from raymdm.verdict.search import read_search
from raymdm.verdict.sequential import SequentialDesign


@dataclass(frozen=True)
class Metric:
    """A score that runs are compared on."""

    name: str
    higher_is_better: bool
    label: str
    """As it stands under an axis or over a table."""


ACCURACY = Metric("accuracy", True, "accuracy")
NELBO = Metric("nelbo", False, "NELBO per token (nats)")


@dataclass(frozen=True)
class Results:
    """All runs of one experiment and the question they were run for."""

    source: str
    """Directory or file the runs come from."""
    runs: pd.DataFrame
    """One row per planned run: `arm`, `seed`, `setting` (label of the hyperparameters, "" without),
    `state`, one column per metric, `step0_accuracy`, `seconds`, those of `PASSES`, `attempts`,
    `message`, `run_dir`, and `unscored` (names of the metrics a finished run did not measure)."""
    metrics: tuple[Metric, ...]
    """Those that at least one run measured."""
    primary: str
    """Name of the metric that decides."""
    baseline: str
    margin: float | None = None
    path: str | None = None
    """How the sweep ran its trials: `process` or `trainer`."""
    declared: bool = True
    """Whether the primary metric was fixed before the runs, as in a sweep."""
    extended: bool = False
    """Whether runs were added to the design after others had ended."""
    question: str = "means"
    """What the runs were made to compare: `means` or `spread`."""
    search: tuple[dict[str, Any], ...] = ()
    """How every arm's settings were chosen, as `read_search` says."""
    varied: tuple[str, ...] | None = None
    """The streams that differ between the seeds; None means all of them."""
    until: SequentialDesign | None = None
    """How seeds were added until the question was decided, if they were."""
    item_table: pd.DataFrame | None = None
    """Scores item by item that came with a table of scores; those of runs are in their folders."""

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the design."""
        return list(dict.fromkeys(self.runs["arm"]))

    @property
    def settings(self) -> list[str]:
        """Labels of the hyperparameter settings; `[""]` where there are none."""
        return list(dict.fromkeys(self.runs["setting"]))

    def table(self, metric: Metric, setting: str) -> pd.DataFrame:
        """The runs of one setting as `compare` takes them: arm, seed, state and the metric."""
        runs = self.runs[self.runs["setting"] == setting].copy()
        unscored = runs["unscored"].map(lambda names: metric.name in names)
        # Never measured is not diverged: the run is lost for this metric only.
        runs.loc[unscored & (runs["state"] == "finished"), "state"] = "failed"
        return runs[["arm", "seed", "state", metric.name]]

    def items(self, metric: Metric, setting: str) -> ItemScores | None:
        """Every finished run's scores item by item, where all of them have some."""
        table = self._item_table
        if table is None or metric.name not in table:
            return None
        table = table[table["setting"] == setting]
        if metric.name == NELBO.name and "tokens" in table:
            table = table.assign(weight=table["tokens"])
        runs = one_row_per_run(self.table(metric, setting), metric.name)
        return item_scores(table, metric.name, runs)

    @cached_property
    def _item_table(self) -> pd.DataFrame | None:
        """One row per run and item: arm, seed, setting, item and the metrics."""
        if self.item_table is not None:
            return self.item_table.assign(setting="")
        frames = []
        for run in self.runs.itertuples():
            if run.state != "finished" or not run.run_dir:
                continue
            frame = read_item_table(Path(run.run_dir))
            if frame is None:
                return None
            frames.append(frame.assign(arm=run.arm, seed=run.seed, setting=run.setting))
        if not frames:
            return None
        table = pd.concat(frames, ignore_index=True)
        per_token = table["nll"] / table["tokens"]
        return table.assign(**{ACCURACY.name: table["correct"], NELBO.name: per_token})

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Rows of every `metrics.parquet`: arm, seed, setting and `CURVE_COLUMNS`."""
        frames = []
        for run in self.runs.itertuples():
            frame = read_curves(Path(run.run_dir)) if run.run_dir else None
            if frame is not None:
                frames.append(frame.assign(arm=run.arm, seed=run.seed, setting=run.setting))
        if not frames:
            return pd.DataFrame(columns=["arm", "seed", "setting", *CURVE_COLUMNS])
        return pd.concat(frames, ignore_index=True)


def read_sweep(path: str | Path) -> Results:
    """The runs of a sweep directory, from its `sweep.json` and the run directories below.

    Raises:
        DataError: no such directory, no `sweep.json`, or one that cannot be read.
    """
    folder = existing_folder(path)
    file = folder / "sweep.json"
    if not file.is_file():
        raise DataError(f"{folder} has no sweep.json: it is not the directory of a sweep")
    design = read_mapping(file)
    rows = []
    try:
        arms = [str(arm) for arm in design["arms"]]
        seeds = list(design["seeds"])
        for trial in design["trials"]:
            rows.append(_read_trial(folder, trial))
        baseline, primary = design.get("baseline") or arms[0], design.get("metric") or "accuracy"
        until = SequentialDesign.from_dict(design["until"]) if design.get("until") else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file}: not as `raymdm sweep` writes it ({reason})") from error
    present = {(row["setting"], row["arm"], row["seed"]) for row in rows}
    for setting in dict.fromkeys([row["setting"] for row in rows] or [""]):
        for arm in arms:
            for seed in seeds:
                if (setting, arm, seed) not in present:
                    lost = read_row(arm, seed, None, message="never started")
                    rows.append({**lost, "setting": setting})
    results = _results(
        folder, rows, arms, baseline, primary, design.get("margin"), design.get("path")
    )
    extended = bool(design.get("extended_after_results"))
    varied = None if design.get("vary") is None else tuple(map(str, design["vary"]))
    return replace(
        results,
        extended=extended,
        until=until,
        varied=varied,
        question=str(design.get("question") or "means"),
        search=tuple(read_search(folder)),
    )


def read_runs(paths: Sequence[str | Path]) -> Results:
    """The runs of several run directories; the first one's arm is the baseline.

    A run's arm and seed are those in its `status.json`; without them the folder's name and the
    seed of its `config.yaml`.

    Raises:
        DataError: no such directory, or one without `status.json`.
    """
    rows = []
    for path in paths:
        folder = existing_folder(path)
        if not (folder / "status.json").is_file():
            raise DataError(f"{folder} has no status.json: it is not the directory of a run")
        status = read_mapping(folder / "status.json")
        arm = str(status.get("arm") or folder.resolve().name)
        seed = status.get("seed")
        rows.append(read_row(arm, seed_of(folder) if seed is None else seed, folder))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    common = str(Path(paths[0]).parent) if len(paths) > 1 else str(paths[0])
    results = _results(Path(common), rows, arms, arms[0], "accuracy", None, None)
    first = results.metrics[0].name if results.metrics else results.primary
    return replace(results, primary=first, declared=False)


def choose_metric(results: Results, name: str | None) -> str:
    """`name` (default: the declared metric) if it was measured. Raises ConfigurationError."""
    chosen, known = name or results.primary, [metric.name for metric in results.metrics]
    if chosen not in known:
        found = ", ".join(known) or "none (no run has a score)"
        raise ConfigurationError(
            f"metric {chosen!r} was not measured in these runs; found: {found}"
        )
    return chosen


def setting_label(settings: Mapping[str, Any]) -> str:
    """Hyperparameters as one line: `training.learning_rate=0.001, …`, sorted by key."""
    parts = []
    for key in sorted(settings):
        value = settings[key]
        text = f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
        parts.append(f"{key}={text}")
    return ", ".join(parts)


def _results(
    folder: Path,
    rows: list[dict[str, Any]],
    arms: Iterable[str],
    baseline: str,
    primary: str,
    margin: float | None,
    path: str | None,
) -> Results:
    if not rows:
        raise DataError(f"{folder} plans no runs: sweep.json lists no arms, seeds or trials")
    _refuse_mixed_scores(rows)
    order = {arm: number for number, arm in enumerate(arms)}
    rows.sort(key=lambda row: (order.get(row["arm"], len(order)),))
    runs = pd.DataFrame(rows)
    # A metric that no finished run measured (a task without answers to score) is left out.
    finished = [set(row["unscored"]) for row in rows if row["state"] == "finished"]
    unmeasured = set.intersection(*finished) if finished else set()
    metrics = tuple(metric for metric in (ACCURACY, NELBO) if metric.name not in unmeasured)
    return Results(str(folder), runs, metrics, primary, str(baseline), margin, path)


def _refuse_mixed_scores(rows: list[dict[str, Any]]) -> None:
    """Raises DataError where runs were scored on other items or with other settings."""
    scored = [row for row in rows if row.get("measured_with")]
    for row in scored:
        if row["measured_with"] != scored[0]["measured_with"]:
            raise DataError(
                f"{row['run_dir']} was scored with {row['measured_with']}, "
                f"{scored[0]['run_dir']} with {scored[0]['measured_with']}; score both alike with "
                "`raymdm evaluate` before comparing them"
            )


def _read_trial(folder: Path, trial: Mapping[str, Any]) -> dict[str, Any]:
    """One planned run of a sweep as a row."""
    run_dir = folder / trial["run_dir"] if trial.get("run_dir") else None
    row = read_row(
        str(trial["arm"]), trial["seed"], run_dir, trial.get("state"), trial.get("message")
    )
    row["attempts"] = int(trial.get("attempts") or 0)
    row["setting"] = setting_label(trial.get("settings") or {})
    return row
