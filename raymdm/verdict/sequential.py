"""Adaptive seeds: looks at the scores on the way, and when each arm's question is answered.

The design is fixed before the first look: all seeds that may be run, how many are added before each
look (to all arms alike), the margin, and how the error is spent over the looks. `look` is a pure
function of that design and the scores so far: it replays every look whose runs are complete, so a
sweep that was killed asks again and hears the same. A design of one look is the decision rule.

- better, worse: Welch's p below the look's boundary, Holm within the look and from look to look: an
  arm that was decided leaves its share of the error to the others (Ye, Li, Liu and Yao 2013, Stat.
  Med. 32; Maurer and Bretz 2013). Boundaries: `raymdm.verdict.spending`. Before the last look the t
  distribution has as many degrees of freedom as the smaller arm alone gives (n - 1, Hsu's bound):
  Welch's own err a little in far tails, and that adds up over the looks (the simulation of
  `raymdm bench verdict` had up to 5.5% and, under `pocock`, 6.4% at standard deviations 1:3).
- equivalent: two one-sided Welch tests against ±margin, their 5% spent in the same way.
- futile: the seeds that are left would hardly decide, whatever the truth. Not binding: the error
  holds without it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan, sqrt
from typing import Any, Literal, get_args

import pandas as pd
from scipy import special

from raymdm.errors import ConfigurationError
from raymdm.verdict.outcomes import Outcomes, one_row_per_run, outcomes
from raymdm.verdict.spending import Spending, nominal_levels
from raymdm.verdict.statistics import LEVEL, WelchParts, welch_parts

Word = Literal["continue", "better", "worse", "equivalent", "futile"]

LEAST_SEEDS = 3
"""No look has fewer seeds of an arm: their spread would hardly be measured."""
_FAVOURABLE = 0.9
"""Futility is judged at the favourable end of what the noise may be (its 90% bound)."""


@dataclass(frozen=True)
class SequentialDesign:
    """What is fixed before the first look.

    Attributes:
        arms: the baseline first.
        seeds: all that may be run, in the order of their use; each arm gets the same.
        batch: seeds that are added to every arm before the next look.
        margin: differences below this do not matter, in the score's units.
        metric: column of the score.
        higher_is_better: False for losses and likelihood bounds.
        spending: how the error is spread over the looks.
        futility: an arm is given up where its best chance of being decided with all seeds is below.

    Raises:
        ConfigurationError: fewer than three seeds, one twice, no arm to compare, a batch or margin
            that is not positive.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    batch: int
    margin: float
    metric: str = "score"
    higher_is_better: bool = True
    spending: Spending = "obrien_fleming"
    futility: float = 0.1

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ConfigurationError("a sequential design needs a baseline and another arm")
        if len(self.seeds) < LEAST_SEEDS or len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(
                f"a sequential design needs at least {LEAST_SEEDS} different seeds, "
                f"got {list(self.seeds)}"
            )
        if self.batch < 1:
            raise ConfigurationError(f"batch {self.batch}: at least one seed before each look")
        if not (isfinite(self.margin) and self.margin > 0):
            raise ConfigurationError(f"margin {self.margin} is not a positive number")
        if self.spending not in get_args(Spending):
            known = ", ".join(get_args(Spending))
            raise ConfigurationError(f"unknown spending {self.spending!r}; known: {known}")

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds of every arm that are there at each look; the last look has all of them."""
        most = len(self.seeds)
        counts = range(self.batch, most, self.batch)
        return (*(count for count in counts if count >= LEAST_SEEDS), most)

    def levels(self, level: float) -> tuple[float, ...]:
        """The nominal two-sided p to stay below at each look, spending `level` in all."""
        fractions = tuple(count / len(self.seeds) for count in self.looks)
        return nominal_levels(fractions, level, self.spending)

    def to_dict(self) -> dict[str, Any]:
        """For `sweep.json`."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SequentialDesign":
        """The inverse of `to_dict`. Raises TypeError for other keys."""
        lists = {"arms": tuple(content["arms"]), "seeds": tuple(content["seeds"])}
        return cls(**{**content, **lists})


@dataclass(frozen=True)
class ArmLook:
    """How one arm stands after the newest look, or after the one that answered its question."""

    arm: str
    word: Word
    look: int
    """Number of that look, from 1; 0 before the first."""
    n: int
    """Seeds of every arm at that look."""
    p: float
    """Welch's p at that look, two-sided, not adjusted; before the last look with n - 1 degrees of
    freedom."""
    boundary: float
    """What the p had to stay below."""
    reason: str


@dataclass(frozen=True)
class Decision:
    """What the looks so far have answered."""

    design: SequentialDesign
    look: int
    """Number of the newest complete look, from 1; 0 before the first."""
    arms: tuple[ArmLook, ...]
    """Every arm but the baseline."""

    def __getitem__(self, arm: str) -> ArmLook:
        return next(row for row in self.arms if row.arm == arm)

    @property
    def goes_on(self) -> bool:
        """Whether another look is needed: some arm's question is open."""
        return any(row.word == "continue" for row in self.arms)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every arm should have now, those of the next look if it goes on."""
        looks = self.design.looks
        if self.goes_on:
            return self.design.seeds[: looks[self.look]]
        return self.design.seeds[: looks[self.look - 1]]


def look(design: SequentialDesign, df: pd.DataFrame) -> Decision:
    """Replay every look whose runs are there.

    Args:
        design: as it was fixed before the first look.
        df: one row per run as `compare` takes them: arm, seed, the score, optionally `state`. A
            diverged or failed run is there; one that is pending, running, interrupted or missing
            is waited for. Seeds and arms that the design does not name are ignored.

    Raises:
        DataError: a missing column, an unknown state, or a run that appears twice.
    """
    runs = one_row_per_run(df, design.metric)
    waited = runs["state"].isin(("missing", "interrupted", "running", "pending"))
    names = runs["seed"].astype(str)
    there = set(zip(runs["arm"][~waited], names[~waited], strict=True))
    stages = []
    for count in design.looks:
        seeds = {str(seed) for seed in design.seeds[:count]}
        if not all((arm, seed) in there for arm in design.arms for seed in seeds):
            break
        part = runs[names.isin(seeds)]
        stages.append([outcomes(part[part["arm"] == arm]) for arm in design.arms])
    return replay(design, stages)


def replay(design: SequentialDesign, stages: Sequence[Sequence[Outcomes]]) -> Decision:
    """The looks one after the other: `stages[look][arm]`, the baseline first."""
    rows = [ArmLook(arm, "continue", 0, 0, nan, nan, "no look yet") for arm in design.arms[1:]]
    rejected: set[str] = set()
    reached = 0
    for number, (base, *others) in enumerate(stages):
        if not any(row.word == "continue" for row in rows):
            break
        rows = _look_once(design, number, rows, base, others, rejected)
        reached = number + 1
    return Decision(design, reached, tuple(rows))


def _look_once(
    design: SequentialDesign,
    number: int,
    rows: list[ArmLook],
    base: Outcomes,
    others: Sequence[Outcomes],
    rejected: set[str],
) -> list[ArmLook]:
    """One look: the arms' rows after it. `rejected` (Holm's) is carried from look to look."""
    asked = [row.word == "continue" for row in rows]
    tests = {
        row.arm: _test(design, number, side, base)
        for row, side, ask in zip(rows, others, asked, strict=True)
        if ask
    }
    p_values = {arm: two_sided(test) for arm, test in tests.items()}
    boundaries = holm_within_look(p_values, len(others), rejected, design, number)
    left = len(others) - len(rejected)
    found = []
    for row, side, ask in zip(rows, others, asked, strict=True):
        if ask:
            diverged = side.n_diverged, base.n_diverged
            test = tests[row.arm]
            if row.arm in rejected:
                word, reason = _rejected(design, test, diverged)
            else:
                word, reason = _not_rejected(design, number, test, any(diverged), left)
            p, boundary = p_values[row.arm], boundaries[row.arm]
            seeds = design.looks[number]
            row = ArmLook(row.arm, word, number + 1, seeds, p, boundary, reason)
        found.append(row)
    return found


def _test(design: SequentialDesign, number: int, side: Outcomes, base: Outcomes) -> WelchParts:
    """Welch's test; with cautious degrees of freedom before the last look."""
    test = welch_parts(side.scores, base.scores)
    if number + 1 == len(design.looks) or not test.error > 0:
        return test
    return test._replace(freedom=min(len(side.scores), len(base.scores)) - 1.0)


def _rejected(
    design: SequentialDesign, test: WelchParts, diverged: tuple[int, int]
) -> tuple[Word, str]:
    """The word on an arm whose p is below the boundary, as in the decision rule."""
    favoured = (test.difference > 0) == design.higher_is_better
    if diverged[0 if favoured else 1]:
        return "futile", "the leader diverged, so it does not win"
    return ("better" if favoured else "worse"), "p is below the boundary"


def _not_rejected(
    design: SequentialDesign, number: int, test: WelchParts, diverged: bool, comparisons: int
) -> tuple[Word, str]:
    """The word on an arm that is neither better nor worse at this look."""
    if not diverged and _equivalent(design, number, test):
        return "equivalent", "the difference lies within the margin"
    if number + 1 == len(design.looks):
        return "futile", "all seeds of the design were used"
    if _chance(design, number, test, comparisons) < design.futility:
        return "futile", "the seeds that are left would hardly decide"
    return "continue", "not decided yet"


def holm_within_look(
    p_values: dict[str, float],
    comparisons: int,
    rejected: set[str],
    design: SequentialDesign,
    number: int,
) -> dict[str, float]:
    """Add to `rejected` what this look rejects; returns the boundary that every p was held to.

    The smallest p is held to the boundary of 0.05 over the number of arms not rejected yet, by any
    look; once it passes, the next to that over one arm fewer.
    """
    boundaries: dict[str, float] = {}
    for arm in sorted(p_values, key=lambda name: (not isfinite(p_values[name]), p_values[name])):
        boundary = design.levels(LEVEL / (comparisons - len(rejected)))[number]
        boundaries[arm] = boundary
        if not p_values[arm] < boundary:
            return {name: boundaries.get(name, boundary) for name in p_values}
        rejected.add(arm)
    return boundaries


def two_sided(test: WelchParts) -> float:
    """Welch's p, two-sided; NaN where it is undefined."""
    if not test.error > 0:
        return nan
    return float(2 * special.stdtr(test.freedom, -abs(test.difference) / test.error))


def _equivalent(design: SequentialDesign, number: int, test: WelchParts) -> bool:
    """Both one-sided tests against ±margin pass; at a single look, the 90% interval lies inside."""
    if not test.error > 0:
        return False
    nearest = (design.margin - abs(test.difference)) / test.error
    return bool(special.stdtr(test.freedom, -nearest) < design.levels(2 * LEVEL)[number] / 2)


def _chance(design: SequentialDesign, number: int, test: WelchParts, comparisons: int) -> float:
    """Best conditional power: of a decision if the truth is ±margin, of equivalence if it is 0.

    Given the difference so far, the final one is normal around the weighted mean of it and of the
    assumed truth; the noise is taken at the favourable end of its interval. 1 where it is unknown.
    """
    if not test.error > 0:
        return 1.0
    now, most = design.looks[number], design.looks[-1]
    favourable = test.freedom / special.chdtri(test.freedom, 1 - _FAVOURABLE)
    # Of the difference of two single runs, one of each arm.
    noise = test.error * sqrt(now * favourable)
    final_error, left = noise / sqrt(most), most - now
    wander = noise * sqrt(left) / most
    freedom = 2 * (most - 1)
    decided = -special.stdtrit(freedom, design.levels(LEVEL / comparisons)[-1] / 2) * final_error
    alike = -special.stdtrit(freedom, design.levels(2 * LEVEL)[-1] / 2) * final_error

    def below(limit: float, truth: float) -> float:
        """Probability that the final difference is below the limit, under this truth."""
        return float(special.ndtr((limit - (now * test.difference + left * truth) / most) / wander))

    within = design.margin - alike
    return max(
        1 - below(decided, design.margin),
        below(-decided, -design.margin),
        below(within, 0.0) - below(-within, 0.0) if within > 0 else 0.0,
    )
