"""A verdict as a table: the same cells for the terminal and for the report."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raymdm.verdict.cells import Cell
from raymdm.verdict.compute import COMPUTE_HEADINGS, compute_cells
from raymdm.verdict.decision import ArmVerdict, Verdict
from raymdm.verdict.details import DETAIL_HEADINGS, coverage_lines, detail_cells, variances_seen
from raymdm.verdict.noise import NOISE_HEADINGS, noise_cells
from raymdm.verdict.search import SEARCH_HEADINGS, search_cells
from raymdm.verdict.summary import Comparison, Summary
from raymdm.verdict.wording import decimals, interval, number, p_value, ratio, ratio_interval

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
        Cell(ratio(row.variance_ratio), ratio_interval(row.variance_ratio_interval)),
        Cell(row.verdict, "rests on normality" if rests(row) else ""),
    ]


def rests(row: ArmVerdict) -> bool:
    """Whether to say so: an undecided verdict rests on nothing."""
    return row.rests_on_normality and row.verdict in ("better", "worse")


def title(comparison: Comparison) -> str:
    """`accuracy (higher is better)`, with the setting and `secondary` where they apply."""
    metric = comparison.metric
    direction = "higher is better" if metric.higher_is_better else "lower is better"
    role = "" if comparison.primary else ", secondary"
    setting = f" at {comparison.setting}" if comparison.setting else ""
    return f"{metric.label}{setting} ({direction}{role})"


def verdict_table(comparison: Comparison) -> Table:
    """The terminal's table of one metric in one setting."""
    verdict = comparison.verdict
    table = as_table(HEADINGS, [cells(verdict, row) for row in verdict.arms])
    table.title, table.title_justify = title(comparison), "left"
    table.title_style = "bold" if comparison.primary else ""
    table.caption, table.caption_justify = "\n".join(variances_seen(verdict)), "left"
    return table


def as_table(headings: tuple[tuple[str, str], ...], rows: list[list[Cell]]) -> Table:
    """Rows of cells for the terminal; verdicts in their colours."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading, below in headings:
        table.add_column(f"{heading}\n[dim]{below}[/dim]" if below else heading)
    for row in rows:
        line = []
        for cell in row:
            text = Text(cell.main, style=COLOURS.get(cell.main, ""))
            line.append(text.append(f"\n{cell.detail}", style="dim") if cell.detail else text)
        table.add_row(*line)
    return table


def print_summary(summary: Summary, console: Console) -> None:
    """The verdicts in words, their tables, what stands beside the primary ones, spread, compute
    and noise.
    """
    console.print()
    for each in summary.asked_spreads:
        console.print(Text(f"• {each.sentence}"))
    for text in summary.sentences:
        console.print(Text(f"• {text}"))
    console.print()
    for comparison in summary.comparisons:
        console.print(verdict_table(comparison))
    for comparison in summary.comparisons:
        verdict = comparison.verdict
        if comparison.primary and verdict.comparisons:
            rows = [detail_cells(verdict, row) for row in verdict.arms]
            console.print(as_table(DETAIL_HEADINGS, rows))
            for text in coverage_lines(verdict):
                console.print(Text(text, style="dim"))
    primary = [] if summary.asked_spreads else summary.primary_spreads
    if primary:
        console.print(Text("\nspread between seeds", style="bold"))
        for each in primary:
            console.print(Text(f"• {each.sentence}"))
    if summary.results.search:
        rows = [search_cells(row) for row in summary.results.search]
        console.print(as_table(SEARCH_HEADINGS, rows))
    if summary.compute:
        console.print(as_table(COMPUTE_HEADINGS, [compute_cells(row) for row in summary.compute]))
    if summary.noise:
        console.print(as_table(NOISE_HEADINGS, [noise_cells(row) for row in summary.noise]))
    for text in summary.notes:
        console.print(Text(f"note: {text}", style="dim"))
