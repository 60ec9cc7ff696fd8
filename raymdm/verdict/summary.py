"""Every verdict of one experiment: the primary metric first, each setting by itself."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from raymdm.verdict.compute import compute_per_arm, unequal_compute
from raymdm.verdict.decision import Verdict, by_looks, compare, json_safe
from raymdm.verdict.differences import differing_settings
from raymdm.verdict.noise import noise_per_arm
from raymdm.verdict.outcomes import LOST
from raymdm.verdict.results import Metric, Results, choose_metric
from raymdm.verdict.search import edge_notes
from raymdm.verdict.sequential import look
from raymdm.verdict.spread import Spread, spreads
from raymdm.verdict.tally import retry_note, tally
from raymdm.verdict.wording import sentences


@dataclass(frozen=True)
class Comparison:
    """One metric in one setting."""

    metric: Metric
    setting: str
    primary: bool
    verdict: Verdict

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words, naming the setting and a secondary metric."""
        return [self._before + text for text in sentences(self.verdict)]

    @cached_property
    def spreads(self) -> list[Spread]:
        """The spread between seeds of every arm against the baseline's, likewise named."""
        return [
            replace(each, sentence=self._before + each.sentence) for each in spreads(self.verdict)
        ]

    @property
    def _before(self) -> str:
        setting = f"[{self.setting}] " if self.setting else ""
        return setting + ("" if self.primary else "secondary: ")


@dataclass(frozen=True)
class Summary:
    """What the runs say, in numbers and in words."""

    results: Results
    primary: str
    baseline: str
    margin: float | None
    comparisons: tuple[Comparison, ...]
    compute: list[dict[str, Any]]
    """As `compute_per_arm` says; empty where no run counted its passes."""
    noise: list[dict[str, Any]]
    """As `noise_per_arm` says; empty where no run measured its noise."""
    settings: dict[str, dict[str, Any]]
    """As `differing_settings` says: by dotted key the arms' values."""
    tally: list[dict[str, Any]]
    """As `tally` says: what became of every arm's runs."""
    notes: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """Every verdict in words, the primary metric's first."""
        return [text for comparison in self.comparisons for text in comparison.sentences]

    @property
    def asked_spreads(self) -> list[Spread]:
        """What comes first where the runs were made to compare spreads; empty elsewhere."""
        return self.primary_spreads if self.results.question == "spread" else []

    @property
    def primary_spreads(self) -> list[Spread]:
        """The spreads of the primary metric."""
        return [
            each
            for comparison in self.comparisons
            if comparison.primary
            for each in comparison.spreads
        ]

    @property
    def spreads(self) -> list[Spread]:
        """The spread between seeds of every arm, in the same order."""
        return [each for comparison in self.comparisons for each in comparison.spreads]

    def to_dict(self) -> dict[str, Any]:
        """The content of `summary.json`; a metric maps to one verdict, or to one per setting.

        A verdict holds `metric`, `baseline`, `higher_is_better`, `margin`, `looks` and `arms`, by
        name the fields of `ArmVerdict` with those of `Beside` under `beside` and of `ArmLook`
        under `look`. `spread` has the same metrics (and settings), by arm the fields of `Spread`.
        Undefined numbers are null.
        """
        metrics: dict[str, Any] = {}
        spread: dict[str, Any] = {}
        for comparison in self.comparisons:
            found = {each.arm: json_safe(asdict(each)) for each in comparison.spreads}
            for place, content in ((metrics, comparison.verdict.to_dict()), (spread, found)):
                if len(self.results.settings) == 1:
                    place[comparison.metric.name] = content
                else:
                    place.setdefault(comparison.metric.name, {})[comparison.setting] = content
        runs = self.results.runs.drop(columns="unscored")
        return {
            "source": self.results.source,
            "path": self.results.path,
            "baseline": self.baseline,
            "question": self.results.question,
            "primary_metric": self.primary,
            "margin": self.margin,
            "varied": None if self.results.varied is None else list(self.results.varied),
            "metrics": metrics,
            "spread": spread,
            "compute": json_safe(self.compute),
            "noise": json_safe(self.noise),
            "settings": json_safe(self.settings),
            "tally": json_safe(self.tally),
            "search": json_safe(list(self.results.search)),
            "sentences": self.sentences,
            "notes": list(self.notes),
            "runs": json_safe(runs.to_dict("records")),
        }


def summarise(
    results: Results,
    baseline: str | None = None,
    metric: str | None = None,
    margin: float | None = None,
) -> Summary:
    """Compare the arms on every measured metric; what is not given is as the sweep declared it.

    Raises:
        ConfigurationError: an unknown baseline, a metric that was not measured, a bad margin.
        DataError: a run that appears twice.
    """
    primary = choose_metric(results, metric)
    baseline = baseline or results.baseline
    if margin is None and primary == results.primary:
        margin = results.margin
    ordered = sorted(results.metrics, key=lambda each: each.name != primary)
    comparisons = tuple(
        Comparison(
            each,
            setting,
            each.name == primary,
            _verdict(results, each, setting, baseline, margin if each.name == primary else None),
        )
        for each in ordered
        for setting in results.settings
    )
    compute = compute_per_arm(results, baseline)
    unequal = unequal_compute(compute, baseline)
    counts = tally(results)
    found = filter(None, [retry_note(counts), unequal])
    return Summary(
        results=results,
        primary=primary,
        baseline=baseline,
        margin=margin,
        comparisons=comparisons,
        compute=compute,
        noise=noise_per_arm(results),
        settings=differing_settings(results),
        tally=counts,
        notes=(
            *_notes(results, primary),
            *edge_notes(results.search),
            *found,
            *_item_notes(comparisons),
        ),
    )


def _verdict(
    results: Results, metric: Metric, setting: str, baseline: str, margin: float | None
) -> Verdict:
    """The decision rule; for the metric that seeds were added for, the words of the looks."""
    runs = results.table(metric, setting)
    verdict = compare(
        runs,
        baseline,
        metric.name,
        metric.higher_is_better,
        margin,
        items=results.items(metric, setting),
    )
    until = results.until
    if until is None or until.metric != metric.name or until.arms[0] != baseline:
        return verdict
    return by_looks(verdict, look(until, runs))


def _item_notes(comparisons: tuple[Comparison, ...]) -> list[str]:
    """Where more test items would help as well as more seeds."""
    notes = []
    for comparison in comparisons:
        arms = [row for row in comparison.verdict.arms if row.mostly_items]
        if arms:
            shown = ", ".join(f"{row.arm} {row.item_noise:.2g} of {row.sd:.2g}" for row in arms)
            where = (
                f"{comparison.metric.name}{f' at {comparison.setting}' * bool(comparison.setting)}"
            )
            notes.append(
                f"{where}: more than half of the standard deviation between seeds is noise of the "
                f"{arms[0].items} test items ({shown}); more items would narrow it, not only seeds"
            )
    return notes


def _notes(results: Results, primary: str) -> tuple[str, ...]:
    """What a reader of the verdicts should know besides."""
    notes = []
    if results.question == "spread":
        notes.append("the runs were made to compare spreads; verdicts on means stand beside them")
    if results.until is not None:
        notes.append(
            f"seeds were added until the verdict on {results.until.metric} was decided, by a "
            "design fixed beforehand; that is in its words, not in the intervals and p values, nor "
            "in the verdicts on other metrics"
        )
    if results.varied is not None:
        notes.append(
            f"the seeds vary {', '.join(results.varied)} only, all else is drawn from the first "
            "seed: the spread is what that alone causes, and the verdicts hold for that first seed"
        )
    if results.declared and primary != results.primary:
        notes.append(
            f"the runs were made to compare {results.primary}; {primary} was chosen afterwards, "
            "so read its verdicts as a suggestion for the next sweep"
        )
    if results.extended and results.until is None:
        notes.append(
            "runs were added after others had ended: if that was because of what they showed, the "
            "p values are too small"
        )
    if len(results.settings) > 1:
        notes.append(
            f"{len(results.settings)} settings are judged one by one: Holm's correction covers the "
            "arms inside a setting, not the choice of the best setting"
        )
    lost = results.runs[results.runs["state"].isin(LOST)]
    if len(lost):
        shown = [f"{run.arm} seed {run.seed} ({run.state})" for run in lost.head(5).itertuples()]
        more = ", …" if len(lost) > len(shown) else ""
        notes.append(
            f"{len(lost)} of {len(results.runs)} planned runs gave no result: "
            f"{', '.join(shown)}{more}"
        )
    start = results.runs["step0_accuracy"].dropna()
    if len(start):
        notes.append(f"before training the accuracy is {_range(start)}")
    return tuple(notes)


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.3f}", f"{values.max():.3f}"
    return low if low == high else f"{low} to {high}"
