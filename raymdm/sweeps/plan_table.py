"""A plan in the terminal: a table of the arms, and what it costs and can show in words."""

from math import isfinite

from rich.console import Console
from rich.text import Text

from raymdm.diagnosis.parts import MIB, size
from raymdm.sweeps.plan import ArmPlan, Plan
from raymdm.verdict.cells import Cell
from raymdm.verdict.tables import as_table
from raymdm.verdict.wording import NOTHING

HEADINGS = (
    ("arm", ""),
    ("trials", "to run"),
    ("steps", ""),
    ("forwards", "of first's"),
    ("probe", "forwards"),
    ("s/step", "tokens/s"),
    ("time", "disk"),
)


def print_plan(plan: Plan, console: Console) -> None:
    """The table of the arms, the hours and the disk, and what the design can show."""
    console.print()
    console.print(as_table(HEADINGS, [_cells(arm, plan.arms[0]) for arm in plan.arms]))
    for text in [*_costs(plan), *_powers(plan)]:
        console.print(Text(f"• {text}"))


def _cells(arm: ArmPlan, first: ArmPlan) -> list[Cell]:
    """One arm's cells, in the order of `HEADINGS`."""
    return [
        Cell(arm.arm),
        Cell(str(arm.trials), str(arm.to_run)),
        Cell(_range(arm.steps)),
        Cell(_range(arm.forwards), f"{arm.forwards[1] / first.forwards[1]:.2f} ×"),
        Cell(f"{arm.probe_forwards:,}" if arm.probe_forwards else NOTHING),
        Cell(f"{arm.step_seconds:.2g}", f"{arm.tokens_per_second:,.0f}"),
        Cell(duration(arm.seconds), _bytes(arm.disk)),
    ]


def _costs(plan: Plan) -> list[str]:
    trials, left = (sum(getattr(arm, name) for arm in plan.arms) for name in ("trials", "to_run"))
    settings = f" x {plan.settings} settings" if plan.settings > 1 else ""
    steps = "from the given rate" if plan.measured is None else f"from {plan.measured} steps an arm"
    total = sum(arm.seconds for arm in plan.arms) + (plan.search.seconds if plan.search else 0)
    return [
        *_search(plan),
        f"{trials} trials ({len(plan.arms)} arms x {plan.seeds} seeds{settings}), {left} to run",
        f"time: {duration(plan.seconds)} with {plan.at_once} at once, {duration(total)} one by one "
        f"({steps}); start-up, validation and scoring come on top",
        f"disk: {_bytes(sum(arm.disk for arm in plan.arms))} stay, up to "
        f"{_bytes(plan.while_running)} more while trials run",
    ]


def _search(plan: Plan) -> list[str]:
    lines = []
    if plan.search is not None:
        runs = plan.search
        most = "at most " if runs.halved else ""
        lines.append(
            f"search before them: {most}{runs.runs} runs ({len(plan.arms)} arms x "
            f"{runs.candidates} candidates x {runs.seeds} seeds of their own), "
            f"{most}{duration(runs.seconds / plan.at_once)}, chosen by the held-out NELBO"
        )
    if plan.looks is not None:
        lines.append(
            f"seeds are added until it is decided: looks at {', '.join(map(str, plan.looks))} "
            "seeds an arm; all figures here are of the last"
        )
    return lines


def _powers(plan: Plan) -> list[str]:
    seen = plan.reach
    units = ""
    if isfinite(plan.sd) and plan.sd > 0:
        value = f"{seen.difference * plan.sd:.2g}"
        units = f" ({value} in {plan.metric} at an sd of {plan.sd:.2g}, {plan.sd_source})"
    compared = "1 comparison" if seen.comparisons == 1 else f"{seen.comparisons} comparisons (Holm)"
    found = (
        f"ratios of sds from {plan.sd_ratio:.2g}"
        if isfinite(plan.sd_ratio)
        else "no ratio of sds, whatever it is (take more seeds)"
    )
    lines = [
        f"with 80% power {plan.seeds} seeds an arm and {compared} show differences of means from "
        f"{seen.difference:.2f} sd between seeds{units}, and {found} (Brown and Forsythe's test)",
    ]
    if seen.rests_on_normality:
        lines.append(
            "every verdict will rest on normality: no permutation test of so few seeds goes below "
            f"p = {seen.p_floor_permutation:.2g}"
        )
    if plan.vary is not None:
        lines.append(f"the seeds vary {', '.join(plan.vary)} only; all else is the first seed's")
    return lines


def duration(seconds: float) -> str:
    """`25 s`, `14 min`, `3.4 h`, `120 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _bytes(value: float) -> str:
    return "< 1 MiB" if 0 < value < MIB else size(value)
