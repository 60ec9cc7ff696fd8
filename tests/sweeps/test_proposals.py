"""Candidates come from a grid, from draws or from Optuna, arm by arm."""

import math

import pytest

from raymdm.config.sweep import SearchSection
from raymdm.errors import ConfigurationError
from raymdm.sweeps.proposals import Proposals, grid, make_proposals

RATE = {"training.learning_rate": {"loguniform": [1e-4, 1.0]}}


def _search(**keys: object) -> SearchSection:
    return SearchSection.model_validate({"axes": RATE, "seeds": [9], **keys})


def _drawn(proposals: Proposals) -> list[dict]:
    return [proposals.propose(number) for number in range(proposals.total)]


def _score(settings: dict) -> float:
    return abs(math.log10(settings["training.learning_rate"]) + 2)


def test_a_grid_holds_every_combination() -> None:
    search = _search(axes={"a": {"choice": [1, 2]}, "b": {"choice": ["x", "y", "z"]}})
    made = _drawn(make_proposals(search, "one"))
    assert made == grid(search.axes)
    assert {(each["a"], each["b"]) for each in made} == {(a, b) for a in (1, 2) for b in "xyz"}
    assert len(made) == 6


def test_random_draws_are_the_same_for_every_arm() -> None:
    search = _search(method="random", samples=5)
    first, second = (_drawn(make_proposals(search, arm)) for arm in ("one", "two"))
    assert first == second
    assert len({str(each) for each in first}) == 5


def test_optuna_learns_from_what_it_is_told() -> None:
    proposals = make_proposals(_search(method="optuna", samples=40), "one")
    scores = []
    for number in range(proposals.total):
        scores.append(_score(proposals.propose(number)))
        proposals.tell(number, scores[-1], 10, True)
    assert sum(scores[20:]) < 0.6 * sum(scores[:20])


def test_optuna_goes_on_from_what_an_earlier_call_found() -> None:
    search = _search(method="optuna", samples=30)
    before, after = (make_proposals(search, "one") for _ in range(2))
    for number in range(29):
        settings = before.propose(number)
        score = _score(settings)
        complete = number % 3 > 0
        before.tell(number, score, 10, complete)
        after.resume(number, settings)
        after.tell(number, score, 10, complete)
    told = [
        [(trial.params, trial.values, trial.state) for trial in each.study.trials]
        for each in (before, after)
    ]
    assert told[0] == told[1]
    assert abs(_score(after.propose(29))) < 1.5


def test_optuna_takes_choices_of_any_kind_and_a_run_that_diverged() -> None:
    choices = [[0.9, 0.99], {"a": 1}, None]
    search = _search(axes={"x": {"choice": choices}}, method="optuna", samples=12)
    proposals = make_proposals(search, "one")
    for number in range(12):
        settings = proposals.propose(number)
        assert settings["x"] in choices
        proposals.tell(number, math.inf, 10, True)
    again = make_proposals(search, "one")
    again.resume(0, {"x": {"a": 1}})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "grid"}, "grid needs a choice for every axis, training.learning_rate has none"),
        ({"method": "random", "seeds": [1, 1]}, "holds the same seed twice"),
        ({"method": "random", "axes": {}}, "axes: Dictionary should have at least 1 item"),
    ],
)
def test_a_search_that_cannot_be_is_refused(keys: dict, message: str) -> None:
    from raymdm.config.loading import validate

    search = {"axes": RATE, "seeds": [9], **keys}
    sweep = {"arms": {"one": {}}, "seeds": [0], "search": search}
    with pytest.raises(ConfigurationError, match=message):
        validate({"sweep": sweep}, "test")
