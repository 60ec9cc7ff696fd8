"""The decision rule: from the scores of all runs to one verdict per arm.

The replicate is the seed and the unit is the run's score. Each arm meets the baseline in Welch's
test, two-sided, adjusted by Holm over the arms; nothing else decides. The rule is frozen by
`tests/verdict/test_decision.py`.
"""

import difflib
from dataclasses import asdict, dataclass, replace
from math import isfinite, nan, sqrt
from typing import Any, Literal

import numpy as np
import pandas as pd

from raymdm.errors import ConfigurationError
from raymdm.verdict import power, statistics
from raymdm.verdict.beside import Beside, beside
from raymdm.verdict.item_noise import ItemScores, binomial_noise, item_noise, item_scores
from raymdm.verdict.outcomes import Outcomes, one_row_per_run, outcomes
from raymdm.verdict.sequential import ArmLook, Decision
from raymdm.verdict.statistics import LEVEL, UNDEFINED, Interval, Scores

Word = Literal["baseline", "better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class ArmVerdict:
    """One arm against the baseline; NaN where the runs do not define a number.

    `mean`, `sd`, `min`, `max`, the interval and Welch's p speak of the finished runs only.
    """

    arm: str
    scores: tuple[float, ...]
    """Scores of the finished runs, in the order of the rows."""
    seeds: tuple[Any, ...]
    """Their seeds, in the same order."""
    n: int
    """Runs with an outcome: finished or diverged."""
    n_failed: int
    """Runs that never finished for reasons that are not the arm's."""
    n_diverged: int
    mean: float = nan
    sd: float = nan
    min: float = nan
    max: float = nan
    difference: float = nan
    """Arm minus baseline, in the score's units."""
    interval: Interval = UNDEFINED
    """Welch's 95% interval of the difference."""
    interval_90: Interval = UNDEFINED
    """Welch's 90% interval, the one that `equivalent` is read from."""
    p_welch: float = nan
    p_holm: float = nan
    p_permutation: float = nan
    """Studentised permutation test, on ranks if a run diverged. Beside the verdict, not in it."""
    p_floor: float = nan
    """Smallest p that a permutation test can reach with these numbers of runs."""
    variance_ratio: float = nan
    """Variance of the arm over the baseline's."""
    variance_ratio_interval: Interval = UNDEFINED
    verdict: Word = "undecided"
    rests_on_normality: bool = False
    """No permutation test of this design could reach the level: normal scores are assumed."""
    seeds_needed: tuple[int, int] | None = None
    """Seeds per arm that would show `seeds_needed_for` with 80% power: low and high."""
    seeds_needed_for: float = nan
    """The difference meant: the margin, else twice the baseline's standard error now."""
    items: int = 0
    """Test items of every run; 0 where the scores item by item are not known."""
    item_noise: float = nan
    """Part of `sd` that so few items cause: what other items would add to it or take away."""
    item_noise_binomial: float = nan
    """The bound on it were every item a coin of its own; for items that are right or wrong."""
    beside: Beside | None = None
    """Other looks at the comparison, none of which decides; None for the baseline."""
    look: ArmLook | None = None
    """The look that the word is from, where the seeds were added until the question was decided
    (`raymdm.verdict.sequential`); the interval and the p values are not adjusted for the looks."""

    @property
    def n_finished(self) -> int:
        """Runs with a score."""
        return len(self.scores)

    @property
    def mostly_items(self) -> bool:
        """Whether item noise exceeds half of the seeds' standard deviation."""
        return self.item_noise > self.sd / 2


@dataclass(frozen=True)
class Verdict:
    """All arms on one metric, the baseline first."""

    metric: str
    baseline: str
    higher_is_better: bool
    margin: float | None
    arms: tuple[ArmVerdict, ...]
    looks: int = 1
    """Looks that the design allows; more than one where seeds were added until it was decided."""

    def __getitem__(self, arm: str) -> ArmVerdict:
        return next(row for row in self.arms if row.arm == arm)

    @property
    def comparisons(self) -> int:
        """Arms that meet the baseline: the count that Holm corrects for."""
        return len(self.arms) - 1

    def to_dict(self) -> dict[str, Any]:
        """The verdict for JSON: NaN and infinity become null, arms a mapping by name."""
        content = json_safe(asdict(self))
        content["arms"] = {row.pop("arm"): row for row in content["arms"]}
        return content


def json_safe(value: Any) -> Any:
    """`value` with NaN and infinity as None, tuples as lists, numpy numbers as Python's."""
    if isinstance(value, dict):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value


def compare(
    df: pd.DataFrame,
    baseline: str,
    metric: str = "score",
    higher_is_better: bool = True,
    margin: float | None = None,
    *,
    items: ItemScores | None = None,
) -> Verdict:
    """Say of every arm whether it differs from the baseline or the seeds explain it.

    Args:
        df: One row per run: `arm`, `seed`, the score in the column `metric` and optionally
            `state` (finished, diverged, failed). With a column `item`, one row per run and item;
            a run's score is then the mean over its items. A score that is NaN or infinite counts
            as diverged unless the state says the run failed.
        baseline: The arm that the others are compared with.
        metric: Column of the score.
        higher_is_better: False for losses and likelihood bounds.
        margin: Differences below this do not matter; allows the verdict `equivalent`.
        items: The scores item by item, for what stands beside the verdict; by default those of
            the column `item`.

    Raises:
        DataError: a missing column, an unknown state, or a run that appears twice.
        ConfigurationError: a baseline that is not an arm, or a margin that is not positive.
    """
    runs = one_row_per_run(df, metric)
    baseline = str(baseline)
    names = list(dict.fromkeys(runs["arm"]))
    if baseline not in names:
        close = difflib.get_close_matches(baseline, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(
            f"baseline {baseline!r} is not among the arms: {', '.join(names)}{hint}"
        )
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise ConfigurationError(f"margin {margin} is not a positive number")
    names = [baseline, *(name for name in names if name != baseline)]
    if items is None and "item" in df.columns:
        items = item_scores(df, metric, runs)
    base, *others = (_describe(name, outcomes(runs[runs["arm"] == name]), items) for name in names)
    compared = [_against(arm, base, higher_is_better, margin, len(others)) for arm in others]
    adjusted = statistics.holm([fields["p_welch"] for fields in compared])
    rows = []
    for arm, fields, p_holm in zip(others, compared, adjusted, strict=True):
        measured = replace(
            arm, **fields, p_holm=p_holm, beside=_beside(arm, base, higher_is_better, items)
        )
        word = _decide(measured, base, higher_is_better, margin)
        rows.append(replace(measured, verdict=word))
    return Verdict(
        metric, baseline, higher_is_better, margin, (replace(base, verdict="baseline"), *rows)
    )


def by_looks(verdict: Verdict, decision: Decision) -> Verdict:
    """The verdict of a sweep that added seeds until it was decided: the words are the looks'.

    Tests on seeds that were added because of what the earlier ones showed would err too often, so
    the rule of a single look must not speak here.
    """
    words: dict[str, Word] = {"better": "better", "worse": "worse", "equivalent": "equivalent"}
    looks = {row.arm: row for row in decision.arms}
    rows = tuple(
        replace(row, verdict=words.get(looks[row.arm].word, "undecided"), look=looks[row.arm])
        if row.arm in looks
        else row
        for row in verdict.arms
    )
    return replace(verdict, arms=rows, looks=len(decision.design.looks))


def _decide(
    arm: ArmVerdict, base: ArmVerdict, higher_is_better: bool, margin: float | None
) -> Word:
    """The decision rule."""
    favoured = (arm.difference > 0) == higher_is_better
    if arm.p_holm < LEVEL:
        # Survivors flatter an arm that diverged: neither it nor such a baseline wins by them.
        winner = arm if favoured else base
        if not winner.n_diverged:
            return "better" if favoured else "worse"
        return "undecided"
    low, high = arm.interval_90
    diverged = arm.n_diverged or base.n_diverged
    if margin is not None and not diverged and -margin < low and high < margin:
        return "equivalent"
    return "undecided"


def _against(
    arm: ArmVerdict,
    base: ArmVerdict,
    higher_is_better: bool,
    margin: float | None,
    comparisons: int,
) -> dict[str, Any]:
    """Everything measured of one arm against the baseline, before Holm and the rule."""
    first, second = np.array(arm.scores), np.array(base.scores)
    test = statistics.welch(first, second)
    ratio, ratio_interval = statistics.variance_ratio(first, second)
    floor = statistics.permutation_floor(arm.n, base.n)
    target = margin if margin is not None else 2 * base.sd / sqrt(max(base.n_finished, 1))
    return {
        "difference": test.difference,
        "interval": test.interval,
        "interval_90": test.interval_90,
        "p_welch": test.p,
        "p_permutation": statistics.permutation(*_with_diverged(arm, base, higher_is_better)),
        "p_floor": floor,
        "variance_ratio": ratio,
        "variance_ratio_interval": ratio_interval,
        "rests_on_normality": floor * comparisons > LEVEL,
        "seeds_needed": power.seeds_needed(first, second, target, comparisons),
        "seeds_needed_for": target,
    }


def _beside(
    arm: ArmVerdict, base: ArmVerdict, higher_is_better: bool, items: ItemScores | None
) -> Beside:
    return beside(
        (arm.arm, base.arm),
        (np.array(arm.scores), np.array(base.scores)),
        (arm.seeds, base.seeds),
        (arm.n_diverged, base.n_diverged),
        higher_is_better,
        items,
    )


def _with_diverged(
    arm: ArmVerdict, base: ArmVerdict, higher_is_better: bool
) -> tuple[Scores, Scores]:
    """Scores for the permutation test; ranks, the diverged last, once a run diverged."""
    if not arm.n_diverged and not base.n_diverged:
        return np.array(arm.scores), np.array(base.scores)
    sign = 1.0 if higher_is_better else -1.0
    scored = [
        [*(sign * score for score in side.scores), *[-np.inf] * side.n_diverged]
        for side in (arm, base)
    ]
    ranks = pd.Series(scored[0] + scored[1], dtype=float).rank().to_numpy()
    return ranks[: arm.n], ranks[arm.n :]


def _describe(name: str, runs: Outcomes, items: ItemScores | None) -> ArmVerdict:
    """The numbers of one arm alone."""
    scores, found = runs.scores, len(runs.scores) > 0
    mean = float(np.mean(scores)) if found else nan
    noise = bound = nan
    if items is not None:
        values = items.of(name)
        noise = item_noise(values, items.weights)
        if len(values) and np.isin(values, (0.0, 1.0)).all():
            bound = binomial_noise(mean, len(items.weights))
    return ArmVerdict(
        arm=name,
        scores=tuple(map(float, scores)),
        seeds=runs.seeds,
        n=len(scores) + runs.n_diverged,
        n_failed=runs.n_failed,
        n_diverged=runs.n_diverged,
        mean=mean,
        sd=statistics.spread(scores),
        min=float(np.min(scores)) if found else nan,
        max=float(np.max(scores)) if found else nan,
        items=0 if items is None else len(items.weights),
        item_noise=noise,
        item_noise_binomial=bound,
    )
