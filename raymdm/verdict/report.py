"""`report.html`: one page that holds its pictures and styles itself and needs no network."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from raymdm.verdict import (
    compute,
    curve_plots,
    details,
    differences,
    noise,
    plots,
    search,
    spread,
    tables,
    tally,
)
from raymdm.verdict.pages import templates
from raymdm.verdict.summary import Comparison, Summary


def render_report(summary: Summary) -> str:
    """The page as text. Everything that comes from the runs is escaped."""
    template = templates().get_template("report.html.j2")
    results = summary.results
    arms = [row.arm for row in summary.comparisons[0].verdict.arms]
    return template.render(
        name=Path(results.source).resolve().name,
        summary=summary,
        headings=tables.HEADINGS,
        detail_headings=details.DETAIL_HEADINGS,
        comparisons=[_comparison(comparison) for comparison in summary.comparisons],
        curves=[_curves(summary, setting) for setting in results.settings],
        search_headings=search.SEARCH_HEADINGS,
        search=[search.search_cells(row) for row in results.search],
        search_caption=search.SEARCH_CAPTION,
        compute_headings=compute.COMPUTE_HEADINGS,
        compute=[compute.compute_cells(row) for row in summary.compute],
        spread_caption=spread.SPREAD_CAPTION,
        noise_headings=noise.NOISE_HEADINGS,
        noise=[noise.noise_cells(row) for row in summary.noise],
        noise_caption=noise.NOISE_CAPTION,
        noise_plots=_noise_plots(summary),
        arms=arms,
        many=len(arms) > curve_plots.MOST_TOGETHER,
        settings=differences.settings_rows(summary.settings, arms),
        tally_headings=tally.TALLY_HEADINGS,
        tally=[tally.tally_cells(row) for row in summary.tally],
        runs=[_run(row, summary) for row in results.runs.to_dict("records")],
        metrics=results.metrics,
        smoothed=f"{curve_plots.SMOOTHED_SHARE:.0%}",
    )


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """One metric in one setting: words, table rows and the picture of the seeds."""
    verdict = comparison.verdict
    scored = any(row.n_finished for row in verdict.arms)
    return {
        "title": tables.title(comparison),
        "primary": comparison.primary,
        "sentences": list(
            zip((row.verdict for row in verdict.arms[1:]), comparison.sentences, strict=False)
        )
        if verdict.comparisons
        else [("undecided", text) for text in comparison.sentences],
        "rows": [tables.cells(verdict, row) for row in verdict.arms],
        "words": [row.verdict for row in verdict.arms],
        "details": [details.detail_cells(verdict, row) for row in verdict.arms]
        if verdict.comparisons
        else [],
        "spreads": [(each.word.split()[-1], each.sentence) for each in comparison.spreads],
        "variances": details.variances_seen(verdict),
        "coverage": details.coverage_lines(verdict),
        "plot": Markup(plots.seeds_plot(verdict, comparison.metric.label)) if scored else None,
    }


def _curves(summary: Summary, setting: str) -> dict[str, Any]:
    """The pictures of training in one setting."""
    curves = summary.results.curves
    arms = [row.arm for row in summary.comparisons[0].verdict.arms]
    here = curves[curves["setting"] == setting]
    drawn = [
        curve_plots.curve_plot(here, column, arms, label)
        for column, label in (("loss", "training loss"), ("validation_nelbo", "validation NELBO"))
    ]
    return {"setting": setting, "plots": [Markup(picture) for picture in drawn if picture]}


def _noise_plots(summary: Summary) -> list[tuple[str, Markup]]:
    """Setting and picture, for every setting with a run that measured its noise."""
    by_setting: dict[str, list[dict[str, Any]]] = {}
    for row in summary.noise:
        by_setting.setdefault(row["setting"], []).append(row)
    return [(setting, Markup(curve_plots.noise_plot(rows))) for setting, rows in by_setting.items()]


def _run(row: dict[str, Any], summary: Summary) -> dict[str, Any]:
    """One line in the list of runs."""
    scores = [row[metric.name] for metric in summary.results.metrics]
    shown = ["–" if score != score else f"{score:#.4g}" for score in scores]
    start, seconds = row["step0_accuracy"], row["seconds"]
    return {
        **row,
        "scores": shown,
        "start": "–" if start != start else f"{start:#.3g}",
        "seconds": "–" if seconds != seconds else f"{seconds:.0f}",
    }
