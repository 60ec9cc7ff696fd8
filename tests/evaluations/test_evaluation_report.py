"""The report of an evaluation: its figures, its examples in their order, and escaping."""

import numpy as np
import pandas as pd
import pytest
from page_reader import Page, check_self_contained

from raymdm.config.decoding import DecodingSection
from raymdm.errors import DataError
from raymdm.evaluations.pictures import accuracy_by_length, equal_bins
from raymdm.evaluations.report import Report, render_report, write_report
from raymdm.verdict.items import ratio_of_sums, share, step_columns

EVIL = "</script><img src=x onerror=alert(1)>'\"&amp;"
PATHS = {"right": [False, True], "over": [True, False], "wrong": [False, False]}


def items_of(kinds: list[str], **columns: object) -> pd.DataFrame:
    """Items that are `right`, `wrong`, `over` or have no answer (`none`); these have no trace."""
    return pd.DataFrame(
        [
            {
                "item": f"row-{number}",
                "correct": float(kind == "right"),
                "nll": 2.0 + number % 3,
                "tokens": 4 + number % 5,
                "response": f"so it is {number}",
                "answer": None if kind == "none" else str(number),
                "prompt": f"how many is {number}?",
                "reference_answer": str(number + 100),
                **(step_columns(PATHS[kind]) if kind in PATHS else {}),
            }
            for number, kind in enumerate(kinds)
        ]
    ).assign(**columns)


def summary_of(items: pd.DataFrame, **values: object) -> dict[str, object]:
    accuracy, found = share(items["correct"]), share(items["answer"].notna())
    return {
        "task": "gsm8k",
        "split": "test",
        "items": len(items),
        "accuracy": accuracy.value,
        "accuracy_standard_error": accuracy.standard_error,
        "extraction_rate": found.value,
        "extraction_rate_standard_error": found.standard_error,
        "figures": {"F1": {"value": 0.4321, "standard_error": 0.0123}},
        "nelbo_per_token": 0.5,
        "nelbo_standard_error": 0.0021,
        "perplexity_bound": 1.6487,
        "perplexity_bound_standard_error": 0.0035,
        "bound": "nelbo",
        "nelbo": {"draws": 4},
        "sampler": "masked",
        "decoding": DecodingSection(response_length=64, remasking="running_max").model_dump(),
        "versions": {"raymdm": "0.1.0"},
        "seconds": 12.5,
    } | values


def page_of(items: pd.DataFrame, *, summary=None, start=None, **report) -> Page:
    last = summary or summary_of(items)
    scores = {"step 9": last} if start is None else {"start": start, "step 9": last}
    return Page(render_report(Report("runs/one", "runs/one, step 9", scores, items, **report)))


def words(page: Page) -> str:
    return " ".join(page.shown.split())


def articles(page: Page) -> list[str]:
    return [attributes["data-kind"] for attributes in page.all("article")]


def test_every_figure_stands_with_its_error_and_its_number_of_items():
    items = items_of(["right", "wrong", "over", "none"])
    text = words(page_of(items))
    assert "accuracy 25.0% ± 21.7% 1 of 4 items; 95% interval 4.6% to 69.9%" in text
    assert "answers found 75.0% ± 21.7%" in text
    assert "F1 43.2% ± 1.2%" in text
    assert "over-denoised 33.3% ± 27.2% right at some step, wrong at the end; 3 traced" in text
    spread = ratio_of_sums(items["nll"], items["tokens"]).standard_error
    assert f"NELBO 0.5000 ± 0.0021 nats per token; over the items ± {spread:.4f}" in text
    assert "perplexity ≤ 1.649 ± 0.0035" in text


def test_at_zero_and_one_an_interval_takes_the_place_of_an_error_of_nothing():
    text = words(page_of(items_of(["wrong"] * 10)))
    assert "accuracy 0.0% [0.0%, 27.8%]" in text
    assert "answers found 100.0% [72.2%, 100.0%]" in text
    assert "± 0.0%" not in text


def test_a_causal_model_has_an_exact_likelihood():
    items = items_of(["right", "wrong"])
    text = words(page_of(items, summary=summary_of(items, bound="exact_likelihood")))
    assert "NLL 0.5000 nats per token" in text
    assert "perplexity 1.649 per token" in text
    assert "≤" not in text
    assert "NELBO," not in text


def test_start_and_end_stand_side_by_side():
    items = items_of(["right", "wrong"])
    start = summary_of(items, accuracy=0.0, nelbo_per_token=5.25, figures={})
    text = words(page_of(items, start=start))
    assert "start 0.0% [0.0%, 65.8%]" in text
    assert "– 5.2500 ± 0.0021" in text  # no F1 at the start
    assert "step 9 50.0% ± 35.4%" in text
    assert "Before and after" not in words(page_of(items))


def test_all_settings_of_the_sampler_are_there_and_say_what_they_mean():
    page = page_of(items_of(["right"]))
    text = words(page)
    for name in DecodingSection.model_fields:
        assert name in text
    assert "remasking running_max none: what is revealed stays." in text
    assert "top_p null" in text
    assert "raymdm 0.1.0" in text


def test_examples_come_wrong_first_then_unanswered_then_right():
    kinds = ["right", "none", "wrong", "over", "wrong", "none", "right", "wrong", "right"]
    page = page_of(items_of(kinds), examples=3)
    assert articles(page) == ["wrong", "wrong over", "wrong", "unanswered", "right"]
    assert "row-7" not in page.shown  # the fourth wrong one
    for text in ("how many is 2?", "so it is 2", "102"):
        assert text in page.shown
    assert "none found" in page.shown


def test_one_may_choose_among_the_kinds_that_occur():
    page = page_of(items_of(["wrong", "right"]))
    chosen = [b["data-kind"] for b in page.all("button")]
    assert chosen == ["all", "wrong", "right"]


def test_traced_items_are_linked_with_the_over_denoised_first():
    traces = {f"row-{number}": f"traces/a b{number}.html" for number in range(4)}
    page = page_of(items_of(["right", "wrong", "over", "none"]), traces=traces)
    links = [(a.get("class"), a["href"]) for a in page.all("a") if a.get("class")]
    assert links == [
        ("over", "traces/a%20b2.html"),
        ("right", "traces/a%20b0.html"),
        ("wrong", "traces/a%20b1.html"),
        ("wrong", "traces/a%20b3.html"),
    ]
    assert len(page.all("a")) == 8  # and beside each example
    text = words(page)
    assert "right at some step 66.7% ± 27.2%" in text
    assert "first right step, mean where there is one 1.5 ± 0.5" in text


def test_without_traces_there_is_no_word_of_them():
    items = items_of(["right", "wrong"]).drop(
        columns=["right_at_some_step", "over_denoised", "first_right_step"]
    )
    text = words(page_of(items))
    assert "over-denoised" not in text
    assert "right at some step" not in text
    assert "Trace pages" not in text


def test_responses_made_elsewhere_need_no_model_and_no_likelihood():
    items = items_of(["right", "wrong"])[["item", "correct", "response", "answer"]]
    summary = {"task": "gsm8k", "split": "gold.jsonl", "items": 2, "accuracy": 0.5}
    page = page_of(items, summary=summary)
    check_self_contained(page)
    assert "NELBO" not in page.shown.partition("± one standard error")[0]
    assert "gold.jsonl" in page.shown


def test_the_page_fetches_nothing_and_escapes_what_it_shows():
    items = items_of(["wrong", "none", "right", "over"])
    for name in ("item", "response", "prompt", "reference_answer"):
        items[name] = EVIL
    items.loc[0, "answer"] = EVIL
    summary = summary_of(items, task=EVIL, decoding={EVIL: EVIL}, figures={}, versions={EVIL: EVIL})
    page = page_of(items, summary=summary, data=EVIL, traces={EVIL: "javascript:alert(1)"})
    check_self_contained(page)
    assert page.shown.count("<img src=x onerror=alert(1)>") > 15


def test_pictures_need_enough_items_whose_lengths_vary():
    many = items_of(["right", "wrong", "over"] * 30)
    (response,) = accuracy_by_length(many.drop(columns="prompt"))
    assert "reference response, tokens" in response
    assert len(list(accuracy_by_length(many))) == 1  # prompts of 14 and 15 characters: two bins
    assert list(accuracy_by_length(many.head(30))) == []
    page = page_of(many)
    assert len(page.all("svg")) == 1


def test_bins_hold_about_as_many_items_and_keep_equal_values_together():
    values = np.repeat([3.0, 1.0, 2.0, 9.0], [40, 30, 20, 30])
    bins = equal_bins(values)
    assert [sorted(set(values[indices])) for indices in bins] == [[1], [2, 3], [9]] or [
        sorted(set(values[indices])) for indices in bins
    ] == [[1], [2], [3], [9]]
    assert sorted(np.concatenate(bins)) == list(range(120))
    assert [len(indices) for indices in equal_bins(np.arange(120.0))] == [20] * 6
    assert equal_bins(np.ones(200)) == []
    assert equal_bins(np.arange(44.0)) == []


def test_a_report_is_written_whole_or_refused_in_one_line(tmp_path):
    items = items_of(["right"])
    report = Report("one", "one", {"final": summary_of(items)}, items)
    path = write_report(tmp_path / "new", report)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write the page .*taken"):
        write_report(tmp_path / "taken", report)
