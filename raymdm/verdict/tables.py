"""A verdict as a table: the same cells for the terminal and for the report."""

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raymdm.verdict.decision import ArmVerdict, Verdict
from raymdm.verdict.summary import Comparison, Summary
from raymdm.verdict.wording import NOTHING, decimals, interval, number, p_value, ratio

COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow"}

HEADINGS = (
    ("arm", ""),
    ("runs", ""),
    ("mean ± sd", "min to max"),
    ("difference", "95% interval"),
    ("p Holm", "permuted"),
    ("variance ratio", "95% interval"),
    ("verdict", ""),
)
"""Title and subtitle of every column; a cell's two lines follow them."""


@dataclass(frozen=True)
class Cell:
    """A cell: the number that is read first, and the smaller line below it."""

    main: str
    detail: str = ""


def cells(verdict: Verdict, row: ArmVerdict) -> list[Cell]:
    """One arm's cells, in the order of `HEADINGS`."""
    places = decimals(verdict)
    lost = [f"diverged {row.n_diverged}/{row.n}"] if row.n_diverged else []
    lost += [f"failed {row.n_failed}"] if row.n_failed else []
    described = [
        Cell(row.arm),
        Cell(str(row.n), ", ".join(lost)),
        Cell(
            f"{number(row.mean, places)} ±\N{NO-BREAK SPACE}{number(row.sd, places)}",
            f"{number(row.min, places)} to {number(row.max, places)}",
        ),
    ]
    if row.verdict == "baseline":
        return [*described, Cell(""), Cell(""), Cell(""), Cell("baseline")]
    return [
        *described,
        Cell(number(row.difference, places, sign=True), interval(row.interval, places)),
        Cell(p_value(row.p_holm), p_value(row.p_permutation)),
        Cell(ratio(row.variance_ratio), _ratio_interval(row)),
        Cell(row.verdict, "rests on normality" if rests(row) else ""),
    ]


def rests(row: ArmVerdict) -> bool:
    """Whether to say so: an undecided verdict rests on nothing."""
    return row.rests_on_normality and row.verdict in ("better", "worse")


def _ratio_interval(row: ArmVerdict) -> str:
    low, high = map(ratio, row.variance_ratio_interval)
    return NOTHING if NOTHING in (low, high) else f"[{low}, {high}]"


def title(comparison: Comparison) -> str:
    """`accuracy (higher is better)`, with the setting and `secondary` where they apply."""
    metric = comparison.metric
    direction = "higher is better" if metric.higher_is_better else "lower is better"
    role = "" if comparison.primary else ", secondary"
    setting = f" at {comparison.setting}" if comparison.setting else ""
    return f"{metric.label}{setting} ({direction}{role})"


def verdict_table(comparison: Comparison) -> Table:
    """The terminal's table of one metric in one setting."""
    table = Table(
        title=title(comparison),
        title_justify="left",
        title_style="bold" if comparison.primary else "",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading, below in HEADINGS:
        table.add_column(f"{heading}\n[dim]{below}[/dim]" if below else heading)
    for row in comparison.verdict.arms:
        line = []
        for cell in cells(comparison.verdict, row):
            style = COLOURS.get(cell.main, "")
            text = Text(cell.main, style=style)
            line.append(text.append(f"\n{cell.detail}", style="dim") if cell.detail else text)
        table.add_row(*line)
    return table


def print_summary(summary: Summary, console: Console) -> None:
    """Tables, the primary metric first, then the verdicts in words."""
    console.print()
    for comparison in summary.comparisons:
        console.print(verdict_table(comparison))
    for text in summary.sentences:
        console.print(Text(f"• {text}"))
    for text in summary.notes:
        console.print(Text(f"note: {text}", style="dim"))
