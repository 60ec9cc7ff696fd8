"""The figures as tables: the same cells for the terminal and for the page."""

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raymdm.variances.figures import Figures, Gain, Measured, Parts
from raymdm.variances.wording import (
    exponent,
    overlap,
    percent,
    ratio,
    ratio_interval,
    scaled,
)

COMPONENTS = (
    ("A", "A", "mask pattern"),
    ("B", "B", "mask rate"),
    ("B1", "B1", "alike for all rows"),
    ("B2", "B2", "differs by row"),
    ("C", "C", "rows"),
    ("total", "A + B + C", ""),
    ("direct", "direct variance", ""),
)
"""Field of `Parts`, label and meaning of every line of the decomposition."""
OTHER_OBJECTIVE = "* another objective than Standard's: its variance cannot be compared"
_LONGEST_NAME = 20
_LIMITS = {"iid": "iid", "stratified": "strat."}
_HEADINGS = (
    "views",
    "loss\n[dim]step[/dim]",
    "gradient\n[dim]step[/dim]",
    "gradient\n[dim]forward[/dim]",
    "pre-\ndicted",
    "gradient\n[dim]over optimum[/dim]",
)


@dataclass(frozen=True)
class Component:
    """One line of the decomposition of one quantity: label, meaning, variance and share."""

    label: str
    meaning: str
    variance: str
    share: str


def decomposition(parts: Parts) -> list[Component]:
    """The lines of `COMPONENTS`; variances in units of 10 to the `exponent` of the total."""
    return [
        Component(
            label,
            meaning,
            scaled(getattr(parts, field), parts.total.value),
            percent(getattr(parts, field).value / parts.total.value),
        )
        for field, label, meaning in COMPONENTS
    ]


def agreement(quantity: str, parts: Parts) -> str:
    """Whether the components add up to the variance of independent draws."""
    verdict = "agree" if overlap(parts.total, parts.direct) else "disagree"
    where = "the intervals overlap" if verdict == "agree" else "the intervals do not overlap"
    return f"{quantity}: A + B + C and the direct variance {verdict} ({where})"


def unit(parts: Parts) -> str:
    """` (in 1e-5)`, or nothing where the variances are shown as they are."""
    power = exponent(parts.total.value)
    return f" (in 1e{power})" if power else ""


def starred(measured: Measured) -> str:
    """The name, with an asterisk where the objective is another one."""
    return measured.name if measured.same_objective else f"{measured.name}*"


def of_optimum(measured: Measured, gain: Gain) -> str:
    """`1.02 iid`: measured over the least that any density reaches."""
    if gain.of_optimum is None:
        return ""
    return f"{ratio(gain.of_optimum.value)} {_LIMITS.get(measured.limit, measured.limit)}"


def decomposition_table(figures: Figures) -> Table:
    """Where the noise of the loss and of the gradient comes from."""
    quantities = (("gradient", figures.gradient), ("loss", figures.loss))
    table = _table("Where the noise of one row comes from")
    table.add_column("")
    for quantity, parts in quantities:
        table.add_column(f"{quantity}{unit(parts)}\n[dim]95% interval[/dim]")
        table.add_column("share", justify="right")
    for lines in zip(*(decomposition(parts) for _, parts in quantities), strict=True):
        first = lines[0]
        label = f"{'  ' if len(first.label) == 2 else ''}{first.label} "
        numbers = (text for line in lines for text in (line.variance, line.share))
        table.add_row(Text(label).append(first.meaning, style="dim"), *numbers)
    table.caption = "\n".join(agreement(quantity, parts) for quantity, parts in quantities)
    return table


def estimators_table(figures: Figures) -> Table:
    """Every estimator's variance over Standard's; the recommended one is bold."""
    table = _table("Variance over Standard's, rows drawn anew")
    table.add_column("", max_width=_LONGEST_NAME, overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading)
    for measured in figures.estimators:
        gradient = measured.gradient
        style = "bold" if measured.name == figures.recommended else ""
        cells = (
            starred(measured),
            str(measured.forwards),
            ratio(measured.loss.step.value),
            ratio_interval(gradient.step),
            ratio_interval(gradient.forward),
            ratio(gradient.predicted),
            of_optimum(measured, gradient),
        )
        table.add_row(*(Text(cell, style=style) for cell in cells))
    table.caption = "\n".join(_captions(figures))
    return table


def print_figures(figures: Figures, console: Console) -> None:
    """Tables, what was left out, and the recommendation last: it is read first in a terminal."""
    for table in (decomposition_table(figures), estimators_table(figures)):
        console.print()
        console.print(table)
    for name, reason in figures.left_out.items():
        console.print(Text(f"left out: {name}, {reason}", style="dim"))
    console.print()
    for sentence in figures.sentences:
        console.print(Text(f"• {sentence}"))


def _captions(figures: Figures) -> list[str]:
    others = any(not measured.same_objective for measured in figures.estimators)
    return [
        "step: at as many rows as Standard; forward: at as many forwards",
        "predicted: gradient, step; optimum: the best density under iid or stratified rates",
        *([OTHER_OBJECTIVE] if others else []),
        *([f"recommended (bold): {figures.recommended}"] if figures.recommended else []),
    ]


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
