"""Where the candidates of one arm come from: a grid, random draws, or Optuna's TPE sampler."""

import itertools
from typing import Any, Protocol

import optuna

from raymdm.config.sweep import AxisSection, SearchSection
from raymdm.sweeps.design import Settings, draw_settings, word


class Proposals(Protocol):
    """Settings by number, and what came of them."""

    total: int
    """Candidates in all."""

    def propose(self, number: int) -> Settings:
        """The settings of the next candidate; numbers are asked for in order."""

    def resume(self, number: int, settings: Settings) -> None:
        """A candidate of an earlier call that is under way again, in place of `propose`."""

    def tell(self, number: int, score: float, steps: int, complete: bool) -> None:
        """What a candidate came to.

        Args:
            number: of the candidate.
            score: mean over its seeds, less is better; infinity where one diverged.
            steps: optimiser steps after which that was.
            complete: it was trained to its end, not stopped on the way.
        """


def make_proposals(search: SearchSection, arm: str) -> Proposals:
    """The proposals of one arm; a grid and random draws are the same for every arm."""
    if search.method == "optuna":
        return OptunaProposals(search.axes, search.samples, arm)
    if search.method == "grid":
        return FixedProposals(grid(search.axes))
    return FixedProposals([draw_settings(search.axes, n) for n in range(search.samples)])


def grid(axes: dict[str, AxisSection]) -> list[Settings]:
    """Every combination of the axes' choices, the last axis fastest."""
    values = [axis.choice or [] for axis in axes.values()]
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*values)]


class FixedProposals:
    """A list made beforehand."""

    def __init__(self, settings: list[Settings]) -> None:
        self.settings = settings
        self.total = len(settings)

    def propose(self, number: int) -> Settings:
        """As in the protocol."""
        return self.settings[number]

    def resume(self, number: int, settings: Settings) -> None:
        """Nothing to remember."""

    def tell(self, number: int, score: float, steps: int, complete: bool) -> None:
        """Nothing to learn."""


class OptunaProposals:
    """One Optuna study; what earlier calls found is told to it again, so that it goes on."""

    def __init__(self, axes: dict[str, AxisSection], samples: int, arm: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.axes, self.total = axes, samples
        # Seeded by the arm's name: another arm does not change what this one is proposed.
        sampler = optuna.samplers.TPESampler(seed=word(arm) % 2**32)
        self.study = optuna.create_study(direction="minimize", sampler=sampler)
        self.distributions = {key: _distribution(axis) for key, axis in axes.items()}
        self.asked: dict[int, optuna.Trial] = {}

    def propose(self, number: int) -> Settings:
        """As in the protocol."""
        self.asked[number] = trial = self.study.ask(self.distributions)
        return {key: self._value(key, value) for key, value in trial.params.items()}

    def resume(self, number: int, settings: Settings) -> None:
        """Ask for exactly these settings."""
        self.study.enqueue_trial({key: self._parameter(key, v) for key, v in settings.items()})
        self.propose(number)

    def tell(self, number: int, score: float, steps: int, complete: bool) -> None:
        """As in the protocol."""
        trial = self.asked.pop(number)
        if complete:
            self.study.tell(trial, score)
        else:
            trial.report(score, steps)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    # Optuna's categories are plain values; a choice may be a list or a mapping: told by its place.
    def _value(self, key: str, parameter: Any) -> Any:
        choice = self.axes[key].choice
        return parameter if choice is None else choice[parameter]

    def _parameter(self, key: str, value: Any) -> Any:
        choice = self.axes[key].choice
        return value if choice is None else choice.index(value)


def _distribution(axis: AxisSection) -> optuna.distributions.BaseDistribution:
    if axis.choice is not None:
        return optuna.distributions.CategoricalDistribution(range(len(axis.choice)))
    low, high = axis.uniform or axis.loguniform or (0.0, 0.0)
    return optuna.distributions.FloatDistribution(low, high, log=axis.loguniform is not None)
