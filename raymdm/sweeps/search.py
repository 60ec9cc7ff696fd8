"""The search of a sweep on Ray Tune: candidates of every arm, and the best of each."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from raymdm.config import Config
from raymdm.config.sweep import HalvingSection
from raymdm.errors import RunError
from raymdm.sweeps.candidate import CandidateTrial
from raymdm.sweeps.design import Trial, make_candidate
from raymdm.sweeps.driver import check_fits, choose_path, run_tuner, trial_resources
from raymdm.sweeps.proposals import Proposals, make_proposals
from raymdm.sweeps.search_record import SearchRecord
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import clear_up
from raymdm.verdict.candidates import ENDED, Candidate, State

Watch = Callable[[Candidate, int, int], None]
"""Called with a candidate that ended, how many have, and of how many."""


def run_search(
    config: Config, seconds_per_pass: Mapping[str, float] | None, watch: Watch
) -> dict[str, Candidate]:
    """Try what is missing of the candidates; Ray must be initialised.

    Args:
        config: the sweep's, with `sweep.search`.
        seconds_per_pass: as for `make_design`.
        watch: see `Watch`.

    Returns:
        By arm, the candidate whose held-out NELBO, mean over the seeds, is the lowest.

    Raises:
        RunError: candidates that never ended, or an arm without one that was trained to its end.
        UserError: the folder holds another search.
    """
    folder = Path(config.run_dir).absolute()
    record = SearchRecord(config, folder)
    search = config.sweep.search
    assert search is not None
    proposals = {arm: make_proposals(search, arm) for arm in config.sweep.arms}
    total = sum(each.total for each in proposals.values())
    if sum(each.state in ENDED for each in record.candidates) < total:
        path = choose_path(config)

        def runs(candidate: Candidate) -> list[Trial]:
            # Made here: relative paths are meant from this process's folder.
            return make_candidate(
                config, candidate.arm, candidate.number, candidate.settings, seconds_per_pass
            )

        def ended(candidate: Candidate) -> None:
            if candidate.state in ENDED:
                for trial in runs(candidate):
                    clear_up(trial.config, RunDirectory(trial.config.run_dir))
            watch(candidate, sum(each.state in ENDED for each in record.candidates), total)

        searcher = CandidateSearch(record, proposals, runs, ended)
        run_tuner(
            tune.with_resources(
                tune.with_parameters(
                    CandidateTrial,
                    halving=search.halving,
                    path=path,
                    folder=os.getcwd(),
                ),
                trial_resources(config, path),
            ),
            config,
            name="tune-search",
            concurrency=check_fits(config, path),
            num_samples=total,
            search_alg=searcher,
            scheduler=ByArm(search.halving) if search.halving else None,
        )
    lost = [each for each in record.candidates if each.state not in ENDED]
    if lost:
        raise RunError(
            f"{len(lost)} of {total} candidates did not end: {lost[0].name} "
            f"({lost[0].message or 'its process was lost'}); the same command again tries only them"
        )
    return record.best()


class CandidateSearch(Searcher):
    """Hands out candidates, arm by arm in turn, and keeps the record of what came of them."""

    def __init__(
        self,
        record: SearchRecord,
        proposals: dict[str, Proposals],
        runs: Callable[[Candidate], list[Trial]],
        ended: Callable[[Candidate], None],
    ) -> None:
        super().__init__(metric="score", mode="min")
        self.record, self.proposals, self.runs, self.ended = record, proposals, runs, ended
        self.under_way: dict[str, Candidate] = {}
        # Under halving also those that ended: their rungs are what later ones are held against.
        self.waiting = [each for each in record.candidates if self._again(each)]
        for each in record.candidates:
            self.proposals[each.arm].resume(each.number, each.settings)
            if each not in self.waiting:
                self._tell(each)

    def _again(self, candidate: Candidate) -> bool:
        halved = self.record.question["halving"] is not None
        return candidate.state not in ENDED or (halved and candidate.state != "diverged")

    def suggest(self, trial_id: str) -> Any:
        """Called by Tune for the next candidate."""
        candidate = self.waiting.pop(0) if self.waiting else self._propose()
        if candidate is None:
            return Searcher.FINISHED
        self.under_way[trial_id] = candidate
        return {
            "arm": candidate.arm,
            "number": candidate.number,
            "runs": self.runs(candidate),
            "stopped_at": candidate.steps if candidate.state == "stopped" else None,
        }

    def _propose(self) -> Candidate | None:
        counts = {arm: len(self.record.of(arm)) for arm in self.proposals}
        open_arms = [arm for arm, made in counts.items() if made < self.proposals[arm].total]
        if not open_arms:
            return None
        arm = min(open_arms, key=counts.__getitem__)
        number = counts[arm]
        candidate = Candidate(arm, number, self.proposals[arm].propose(number))
        self.record.candidates.append(candidate)
        self.record.save()
        return candidate

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Tune at the end of a candidate, also one that its scheduler stopped."""
        candidate = self.under_way.pop(trial_id)
        if candidate.state in ENDED:
            # It only told its rungs again; the order of events may not change what is on record.
            self._tell(candidate)
            return
        if error or result is None or "failed" in result:
            candidate.state = "failed"
            candidate.message = (result or {}).get("failed")
        else:
            candidate.message = None
            candidate.steps, candidate.scores = result["steps"], list(result["scores"])
            done: State = "complete" if result["complete"] else "stopped"
            candidate.state = done if math.isfinite(candidate.score) else "diverged"
            self._tell(candidate)
        # Before it is on record: what a kill leaves here would never be cleared up.
        self.ended(candidate)
        self.record.save()

    def _tell(self, candidate: Candidate) -> None:
        complete = candidate.state != "stopped"
        self.proposals[candidate.arm].tell(
            candidate.number, candidate.score, candidate.steps, complete
        )

    def set_search_properties(self, *arguments: Any, **more: Any) -> bool:
        """Tune has nothing to add: what is searched is in the record."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the record is the state."""


class ByArm(FIFOScheduler):
    """ASHA inside every arm: candidates are held against those of their own arm only."""

    def __init__(self, halving: HalvingSection) -> None:
        super().__init__()
        self.halving = halving
        self.arms: dict[str, ASHAScheduler] = {}

    def _of(self, trial: Any) -> ASHAScheduler:
        arm = trial.config["arm"]
        if arm not in self.arms:
            self.arms[arm] = ASHAScheduler(
                time_attr="rung_time",
                metric="score",
                mode="min",
                grace_period=1,
                reduction_factor=self.halving.factor,
                # One more than the last rung's: rungs are counted by a logarithm, rounded down.
                max_t=self.halving.factor ** (self.halving.rungs - 1) + 1,
            )
        return self.arms[arm]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune."""
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Tune."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune."""
        self._of(trial).on_trial_remove(tune_controller, trial)
