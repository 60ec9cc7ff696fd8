"""`report.html`: one page that holds its pictures and styles itself and needs no network."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from raymdm.verdict import compute, details, plots, tables
from raymdm.verdict.pages import templates
from raymdm.verdict.summary import Comparison, Summary


def render_report(summary: Summary) -> str:
    """The page as text. Everything that comes from the runs is escaped."""
    template = templates().get_template("report.html.j2")
    results = summary.results
    return template.render(
        name=Path(results.source).resolve().name,
        summary=summary,
        headings=tables.HEADINGS,
        detail_headings=details.DETAIL_HEADINGS,
        comparisons=[_comparison(comparison) for comparison in summary.comparisons],
        curves=[_curves(summary, setting) for setting in results.settings],
        compute_headings=compute.COMPUTE_HEADINGS,
        compute=[compute.compute_cells(row) for row in summary.compute],
        runs=[_run(row, summary) for row in results.runs.to_dict("records")],
        metrics=results.metrics,
        smoothed=f"{plots.SMOOTHED_SHARE:.0%}",
    )


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """One metric in one setting: words, table rows and the picture of the seeds."""
    verdict = comparison.verdict
    rows = [(row.verdict, tables.cells(verdict, row)) for row in verdict.arms]
    scored = any(row.n_finished for row in verdict.arms)
    return {
        "title": tables.title(comparison),
        "primary": comparison.primary,
        "sentences": list(
            zip((row.verdict for row in verdict.arms[1:]), comparison.sentences, strict=False)
        )
        if verdict.comparisons
        else [("undecided", text) for text in comparison.sentences],
        "rows": rows,
        "details": [details.detail_cells(verdict, row) for row in verdict.arms]
        if verdict.comparisons
        else [],
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
        plots.curve_plot(here, column, arms, label)
        for column, label in (("loss", "training loss"), ("validation_nelbo", "validation NELBO"))
    ]
    return {"setting": setting, "plots": [Markup(picture) for picture in drawn if picture]}


def _run(row: dict[str, Any], summary: Summary) -> dict[str, Any]:
    """One line in the list of runs."""
    scores = [row[metric.name] for metric in summary.results.metrics]
    shown = ["–" if score != score else f"{score:#.4g}" for score in scores]
    seconds = row["seconds"]
    return {**row, "scores": shown, "seconds": "–" if seconds != seconds else f"{seconds:.0f}"}
