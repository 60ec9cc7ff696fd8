"""The figures of an evaluation as a table on the terminal."""

from math import isfinite
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_UNMATCHED = ("predictions_without_gold", "gold_without_prediction")


def print_scores(title: str, scores: dict[str, dict[str, Any]], written: Path) -> None:
    """One row for each set of weights, then what they were measured with.

    Args:
        title: of the table.
        scores: what the weights are called -> their summary.
        written: where the figures are.
    """
    last = list(scores.values())[-1]
    exact, measured = last.get("bound") == "exact_likelihood", "bound" in last
    table = Table(title=title, title_justify="left")
    table.add_column("weights")
    nats = "NLL nats/token" if exact else "NELBO nats/token"
    likelihood = [nats] if measured else []
    for column in ("accuracy", "95% interval", "answers found", *likelihood):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        low, high = score["accuracy_interval"]
        cells = [
            f"{score['accuracy']:.1%} ± {score['accuracy_standard_error']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{score['extraction_rate']:.1%}",
        ]
        if measured:
            cells.append(f"{score['nelbo_per_token']:.4f} ± {score['nelbo_standard_error']:.4f}")
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    masks = "; the likelihood is exact" if exact else "; the NELBO's over its random masks"
    console.print(f"± standard errors over the items{masks * measured}.", style="dim")
    figures = [f"{name} {_share(figure)}" for name, figure in last["figures"].items()]
    if figures:
        console.print(", ".join(figures), soft_wrap=True)
    if measured:
        bound = "" if exact else "at most "
        console.print(
            f"perplexity per token: {bound}{last['perplexity_bound']:.4g}", soft_wrap=True
        )
        console.print(sampler_line(last), style="dim", soft_wrap=True)
    unmatched = {key: last.get(key) for key in _UNMATCHED if last.get(key)}
    for key, count in unmatched.items():
        console.print(f"{count} {key.replace('_', ' ')}: not scored", soft_wrap=True)
    rates = last.get("denoising")
    if rates:
        console.print(_denoising_line(rates), soft_wrap=True)
    console.print(str(written), soft_wrap=True)


def print_harness(title: str, results: dict[str, Any], written: Path) -> None:
    """The figures of lm-evaluation-harness, as its `results` has them: one row for each."""
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for task, figures in results["results"].items():
        for key, value in figures.items():
            name, _, filtered = key.partition(",")
            if isinstance(value, str) or not filtered or name.endswith("_stderr"):
                continue
            error = figures.get(f"{name}_stderr,{filtered}")
            shown = f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, float) else "")
            table.add_row(task, name if filtered == "none" else f"{name} ({filtered})", shown)
    console = Console()
    console.print(table)
    console.print(str(written), soft_wrap=True)


def sampler_line(score: dict[str, Any]) -> str:
    """The sampler's full settings in one line, those that are not set left out."""
    given = {key: value for key, value in score["decoding"].items() if value not in (None, False)}
    return f"{score['sampler']}: " + ", ".join(f"{key} {value}" for key, value in given.items())


def _share(figure: dict[str, float]) -> str:
    value, error = figure["value"], figure["standard_error"]
    if not isfinite(value):
        return "–"
    return f"{value:.1%} ± {error:.1%}" if isfinite(error) else f"{value:.1%}"


def _denoising_line(rates: dict[str, Any]) -> str:
    return (
        f"of {rates['items']} traced items {_share(rates['right_at_some_step'])} were right at "
        f"some step, {_share(rates['right_at_end'])} at the end; over-denoised: "
        f"{_share(rates['over_denoised'])}"
    )
