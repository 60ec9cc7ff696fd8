"""`report.html` of an evaluation: its figures with their uncertainty, all that they depend on, and
examples of what went wrong. One page that needs no network.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from raymdm.config.decoding import DecodingSection
from raymdm.evaluations import pictures
from raymdm.evaluations.pages import render, write_page
from raymdm.verdict.items import StepRates, ratio_of_sums, step_rates, wilson
from raymdm.verdict.wording import NOTHING

MOST_LINKS = 40
"""Trace pages that the report links; over-denoised items come first."""

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What a report is made of."""

    name: str
    """Its heading."""
    model: str
    """What was evaluated, and which of its weights."""
    scores: Mapping[str, Summary]
    """What the weights are called -> their figures, as in `scores.json`; the page is of the last.

    Read where they are there: task, split, items, accuracy, accuracy_standard_error,
    extraction_rate, extraction_rate_standard_error, figures (name -> value, standard_error),
    nelbo_per_token, nelbo_standard_error, perplexity_bound, perplexity_bound_standard_error, bound,
    nelbo, sampler, decoding, versions, seconds.
    """
    items: pd.DataFrame
    """A row per item of the last: item, correct, response, answer (None where there is none), and
    where known prompt, reference_answer, nll, tokens, and the columns of `step_columns`."""
    data: str = ""
    """Where the items come from; empty takes the split."""
    traces: Mapping[str, str] = field(default_factory=dict)
    """Item -> its trace page, as a path from the report's folder."""
    examples: int = 20
    """So many wrong items are shown in full, and a quarter as many of the other kinds."""


class Figure(NamedTuple):
    """One of the large numbers at the top."""

    label: str
    value: str
    error: str
    """`± …`, or empty."""
    detail: str
    """What stands below it."""


class Example(NamedTuple):
    """One item in full."""

    item: str
    kind: str
    """`wrong`, `unanswered` or `right`."""
    over_denoised: bool
    prompt: str
    response: str
    answer: str | None
    reference: str | None
    link: str | None


def write_report(folder: Path, report: Report) -> Path:
    """Write `report.html` into a folder and return its path.

    Raises:
        DataError: the folder cannot be written to.
    """
    return write_page(folder / "report.html", render_report(report))


def render_report(report: Report) -> str:
    """The page as text. Everything that comes from a model or a data file is escaped."""
    summary = list(report.scores.values())[-1]
    rates = step_rates(report.items)
    examples = list(_examples(report))
    return render(
        "report.html.j2",
        "report.js",
        report=report,
        summary=summary,
        kinds=_kinds(examples),
        data=report.data or summary.get("split", ""),
        figures=list(_figures(summary, report.items)),
        weights=_weights(report.scores) if len(report.scores) > 1 else None,
        pictures=[Markup(picture) for picture in pictures.accuracy_by_length(report.items)],
        rates=None if rates is None else _rates(rates),
        links=_links(report),
        examples=examples,
        settings=list(_settings(summary)),
        exact=summary.get("bound") == "exact_likelihood",
    )


def _figures(summary: Summary, items: pd.DataFrame) -> Iterator[Figure]:
    """Accuracy first; then what else the task measures, and the likelihood."""
    correct = items["correct"].to_numpy(dtype=float)
    low, high = wilson(correct)
    yield Figure(
        "accuracy",
        _percent(summary["accuracy"]),
        _share_error(summary["accuracy"], summary.get("accuracy_standard_error"), len(items)),
        f"{int(correct.sum())} of {len(correct)} items; "
        f"95% interval {_percent(low)} to {_percent(high)}",
    )
    rate = summary.get("extraction_rate")
    if rate is not None:
        error = _share_error(rate, summary.get("extraction_rate_standard_error"), len(items))
        yield Figure("answers found", _percent(rate), error, "responses with an answer in them")
    for name, each in summary.get("figures", {}).items():
        error = _plus_minus(each["standard_error"], _percent)
        yield Figure(name, _percent(each["value"]), error, "of all items together")
    rates = step_rates(items)
    if rates is not None:
        yield Figure(
            "over-denoised",
            _percent(rates.over_denoised.value),
            _share_error(*rates.over_denoised, rates.items),
            f"right at some step, wrong at the end; {rates.items} traced",
        )
    yield from _likelihood(summary, items)


def _likelihood(summary: Summary, items: pd.DataFrame) -> Iterator[Figure]:
    """NELBO and perplexity, or a causal model's exact ones; nothing where no model was at hand."""
    if summary.get("nelbo_per_token") is None:
        return
    exact = summary.get("bound") == "exact_likelihood"
    spread = ratio_of_sums(items["nll"], items["tokens"]).standard_error
    yield Figure(
        "NLL" if exact else "NELBO",
        _nats(summary["nelbo_per_token"]),
        "" if exact else _plus_minus(summary.get("nelbo_standard_error"), _nats),
        f"nats per token; over the items ± {_nats(spread)}",
    )
    bound = summary.get("perplexity_bound")
    if bound is not None:
        error = summary.get("perplexity_bound_standard_error")
        yield Figure(
            "perplexity",
            f"{bound:.4g}" if exact else f"≤ {bound:.4g}",
            "" if exact else _plus_minus(error, "{:.2g}".format),
            "per token" if exact else "per token, a bound",
        )


def _weights(scores: Mapping[str, Summary]) -> dict[str, list[Any]]:
    """The figures of every set of weights side by side."""
    last = list(scores.values())[-1]
    names = list(last.get("figures", {}))
    exact = last.get("bound") == "exact_likelihood"
    heads = ["weights", "accuracy", "answers found", *names]
    return {
        "heads": [*heads, f"{'NLL' if exact else 'NELBO'}, nats per token"],
        "rows": [[name, *_row(each, names)] for name, each in scores.items()],
    }


def _row(score: Summary, names: Sequence[str]) -> Iterator[str]:
    """The cells of one set of weights; `names` are those of the task's figures."""
    for name in ("accuracy", "extraction_rate"):
        share = score.get(name)
        yield (
            NOTHING
            if share is None
            else f"{_percent(share)} "
            f"{_share_error(share, score.get(f'{name}_standard_error'), score['items'])}"
        )
    for name in names:
        figure = score.get("figures", {}).get(name, {})
        yield _with_error(figure.get("value"), figure.get("standard_error"), _percent)
    yield _with_error(score.get("nelbo_per_token"), score.get("nelbo_standard_error"), _nats)


def _rates(rates: StepRates) -> list[tuple[str, str]]:
    shares = {
        "right at the end": rates.right_at_end,
        "right at some step": rates.right_at_some_step,
        "over-denoised: right at some step, wrong at the end": rates.over_denoised,
    }
    return [
        *(
            (label, f"{_percent(share.value)} {_share_error(*share, rates.items)}")
            for label, share in shares.items()
        ),
        (
            "first right step, mean where there is one",
            _with_error(*rates.first_right_step, "{:.1f}".format),
        ),
    ]


def _links(report: Report) -> dict[str, Any]:
    """Links to trace pages: over-denoised items, then the others, each in the items' order."""
    over = _column(report.items, "over_denoised")
    traced = [
        (item, quote(report.traces[item]), over.get(item) is True, right == 1)
        for item, right in zip(report.items["item"], report.items["correct"], strict=True)
        if item in report.traces
    ]
    traced.sort(key=lambda link: not link[2])
    return {"shown": traced[:MOST_LINKS], "more": max(0, len(traced) - MOST_LINKS)}


def _examples(report: Report) -> Iterator[Example]:
    """The first wrong items, the first without an answer, and some right ones for contrast."""
    items = report.items
    right, found = items["correct"] >= 1, items["answer"].notna()
    few = max(1, report.examples // 4)
    over = _column(items, "over_denoised")
    for kind, chosen, most in (
        ("wrong", ~right & found, report.examples),
        ("unanswered", ~right & ~found, few),
        ("right", right, few),
    ):
        for row in items[chosen].head(most).to_dict("records"):
            link = report.traces.get(row["item"])
            yield Example(
                item=row["item"],
                kind=kind,
                over_denoised=over.get(row["item"]) is True,
                prompt=row.get("prompt", ""),
                response=row["response"],
                answer=row["answer"] if isinstance(row["answer"], str) else None,
                reference=row.get("reference_answer"),
                link=None if link is None else quote(link),
            )


def _kinds(examples: Sequence[Example]) -> list[tuple[str, str]]:
    """The kinds to choose from, (name, label), those that occur."""
    found = {example.kind for example in examples}
    found |= {"over" for example in examples if example.over_denoised}
    labels = {"unanswered": "no answer", "over": "over-denoised"}
    kinds = [kind for kind in ("wrong", "unanswered", "over", "right") if kind in found]
    return [("all", "all"), *((kind, labels.get(kind, kind)) for kind in kinds)]


def _column(items: pd.DataFrame, name: str) -> dict[str, bool]:
    """Item -> whether; items for which it is not known are left out."""
    if name not in items:
        return {}
    known = items[items[name].notna()]
    return dict(zip(known["item"], map(bool, known[name]), strict=True))


def _settings(summary: Summary) -> Iterator[tuple[str, Sequence[tuple[str, str, str]]]]:
    """Tables of (name, value, meaning): the sampler's settings, all of them, and the rest."""
    if summary.get("decoding"):
        fields = DecodingSection.model_fields
        yield (
            f"Sampler: {summary.get('sampler', '')}",
            [
                (name, _value(value), _meaning(fields[name].description) if name in fields else "")
                for name, value in summary["decoding"].items()
            ],
        )
    if summary.get("nelbo"):
        yield "NELBO", [(name, _value(value), "") for name, value in summary["nelbo"].items()]
    rest = {name: summary.get(name) for name in ("task", "split", "items", "step", "seconds")}
    rows = [(name, _value(value), "") for name, value in rest.items() if value is not None]
    versions = [(name, _value(value), "") for name, value in summary.get("versions", {}).items()]
    yield "Evaluation", rows + versions


def _meaning(description: str | None) -> str:
    """A key's docstring on one line, without its marks of code."""
    return " ".join((description or "").replace("`", "").split())


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _with_error(value: float | None, error: float | None, text: Any) -> str:
    if value is None or not isfinite(value):
        return NOTHING
    return f"{text(value)} {_plus_minus(error, text)}".strip()


def _plus_minus(error: float | None, text: Any) -> str:
    return "" if error is None or not isfinite(error) else f"± {text(error)}"


def _share_error(share: float, error: float | None, items: int) -> str:
    """`± …`; at 0 and 1, where that would be nothing, Wilson's interval in brackets."""
    if share not in (0, 1):
        return _plus_minus(error, _percent)
    low, high = wilson([share] * items)
    return f"[{_percent(low)}, {_percent(high)}]"


def _percent(value: float) -> str:
    return f"{value:.1%}" if isfinite(value) else NOTHING


def _nats(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else NOTHING
