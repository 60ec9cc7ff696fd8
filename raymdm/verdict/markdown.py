"""`report.md`: verdicts, tables and notes as GitHub's Markdown, to paste into a pull request."""

from collections.abc import Sequence
from pathlib import Path

from raymdm.verdict.cells import Cell
from raymdm.verdict.compute import COMPUTE_HEADINGS, compute_cells
from raymdm.verdict.differences import settings_rows
from raymdm.verdict.noise import NOISE_CAPTION, NOISE_HEADINGS, noise_cells
from raymdm.verdict.search import SEARCH_CAPTION, SEARCH_HEADINGS, search_cells
from raymdm.verdict.spread import SPREAD_CAPTION
from raymdm.verdict.summary import Summary
from raymdm.verdict.tables import HEADINGS, cells, title
from raymdm.verdict.tally import TALLY_HEADINGS, tally_cells

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\|*_`[]#~"})


def render_markdown(summary: Summary) -> str:
    """The text; what comes from the runs is escaped, cells are those of terminal and page."""
    arms = [row.arm for row in summary.comparisons[0].verdict.arms]
    parts = [
        f"# {escaped(Path(summary.results.source).resolve().name)}",
        f"Arms against **{escaped(summary.baseline)}**; the primary metric is "
        f"**{escaped(summary.primary)}**.",
        _list([*(each.sentence for each in summary.asked_spreads), *summary.sentences]),
    ]
    for comparison in summary.comparisons:
        verdict = comparison.verdict
        rows = [cells(verdict, row) for row in verdict.arms]
        parts += [f"## {escaped(title(comparison))}", markdown_table(HEADINGS, rows)]
    if summary.spreads:
        sentences = [each.sentence for each in summary.spreads]
        parts += ["## Spread between seeds", _list(sentences), escaped(SPREAD_CAPTION)]
    if summary.results.search:
        rows = [search_cells(row) for row in summary.results.search]
        table = markdown_table(SEARCH_HEADINGS, rows)
        parts += ["## Settings chosen", table, escaped(SEARCH_CAPTION)]
    if summary.compute:
        rows = [compute_cells(row) for row in summary.compute]
        parts += ["## Compute", markdown_table(COMPUTE_HEADINGS, rows)]
    if summary.noise:
        rows = [noise_cells(row) for row in summary.noise]
        table = markdown_table(NOISE_HEADINGS, rows)
        parts += ["## Noise of training", table, escaped(NOISE_CAPTION)]
    if summary.settings:
        headings = [(name, "") for name in ("setting", *arms)]
        rows = [
            [Cell(key), *(Cell(text) for text, _ in values)]
            for key, values in settings_rows(summary.settings, arms)
        ]
        parts += ["## Settings that differ", markdown_table(headings, rows)]
    rows = [tally_cells(row) for row in summary.tally]
    parts += ["## Runs", markdown_table(TALLY_HEADINGS, rows)]
    if summary.notes:
        parts += ["## Notes", _list(summary.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(headings: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]]) -> str:
    """A table in GitHub's Markdown; a cell's second line follows a line break."""
    titles = [_joined(main, below) for main, below in headings]
    lines = [titles, ["---"] * len(titles)]
    lines += [[_joined(cell.main, cell.detail) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Plain text that Markdown and HTML leave as it is, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.translate(_SPECIAL)


def _joined(main: str, below: str) -> str:
    return escaped(main) + (f"<br>{escaped(below)}" if below else "")


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(text)}" for text in texts)
