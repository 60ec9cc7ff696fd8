"""The worker of a policy's run: a step is a round of rollouts, their rewards, and updates.

Which prompts, what noise, which rewards, which steps: all are functions of the run's seed and of
the weights, not of the number of workers or actors. Rollouts that no checkpoint covers yet are on
disk: whatever is lost, they are not made twice.
"""

import math
import time
from typing import Any

from raymdm.command import add_module_paths, import_modules
from raymdm.reinforcement.figures import write_figures
from raymdm.reinforcement.job import PolicyJob
from raymdm.reinforcement.measures import RoundFigures, round_figures
from raymdm.reinforcement.reference import Reference
from raymdm.reinforcement.round_maker import Made, RoundMaker
from raymdm.reinforcement.rounds import Chosen, choose, count_without_law, make_rows
from raymdm.reinforcement.samples import write_samples
from raymdm.reinforcement.update import Updated, Updater
from raymdm.tasks import get_task
from raymdm.training.checkpoint import Checkpoints, steps_done
from raymdm.training.engine import global_sum, start_engine
from raymdm.training.engine_run import EngineRun, Notice, run_to_end
from raymdm.training.job import Job, Outcome
from raymdm.training.metrics import peak_memory_bytes
from raymdm.training.schedule import learning_rate
from raymdm.training.seeds import seed_of
from raymdm.training.starting import sharded_model, trained_model


def train_policy(job: Job, checkpoints: Checkpoints, notice: Notice | None) -> Outcome:
    """Train on this worker until the last round, the job's pause, divergence or a wish to stop."""
    assert isinstance(job, PolicyJob)
    add_module_paths(job.paths)
    import_modules(job.config.imports)
    worker = PolicyWorker(job, checkpoints, notice)
    try:
        outcome = run_to_end(worker, worker.step)
    finally:
        worker.rounds.close()
    if worker.first:
        if outcome.state != "stopped":
            worker.rounds.kept.clear()
        if job.run.metrics.exists():  # not where the first round diverged
            write_figures(job.run.path)
    return outcome


class PolicyWorker(EngineRun):
    """A run that trains on the rewards of its own rollouts."""

    job: PolicyJob

    def __init__(
        self, job: PolicyJob, checkpoints: Checkpoints, notice: Notice | None = None
    ) -> None:
        self.counts = dict.fromkeys(("forwards", "backwards", "rollouts", "optimiser_steps"), 0)
        try:
            super().__init__(job, checkpoints, notice)
        except BaseException:
            if "rounds" in vars(self):  # its processes would stay
                self.rounds.close()
            raise
        self.held_out = job.held_out()

    def start(self) -> None:
        """Reference, model, engine, and the maker of rounds."""
        job, config = self.job, self.job.config
        reference = Reference(config, job.shape, self.device) if job.policy.beta else None
        if config.deepspeed.zero_stage < 3:
            model = trained_model(config, job.shape, self.device)
        else:
            model = sharded_model(config, job.shape)
        micro_batch = config.training.micro_batch_size
        # How many forwards a round takes depends on what its rewards leave to be learned.
        self.engine = start_engine(model, config, micro_batch or 1, accumulation=1)
        self.update = Updater(
            self.engine,
            job.policy,
            job.decoding,
            job.shape,
            reference,
            micro_batch,
            self.device,
        )
        self.rounds = RoundMaker(job, self.engine, self.device)

    def state(self) -> dict[str, Any]:
        """Of the prompts; and the counts."""
        return {"prompts": self.rounds.prompts.state(), "counts": self.counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Of the prompts; and the counts."""
        self.rounds.prompts.restore(state["prompts"])
        self.counts = dict(state["counts"])

    def passes(self) -> dict[str, int]:
        """Rows through the model: of rollouts, of the reference and of the updates."""
        counted = {name: self.counts[name] for name in ("forwards", "backwards")}
        return {**counted, "probe_forwards": 0}

    def step(self) -> str | None:
        """One round; what was wrong with it, if the loss or gradient is not finite."""
        step, config = self.done, self.job.config
        made = self.rounds.make(step)
        started = time.monotonic()
        broken = count_without_law(made.groups, self.job.shape.mask_token_id)
        (broken_anywhere,) = global_sum(broken, device=self.device)
        if broken_anywhere:
            return self._diverged(f"{broken_anywhere:.0f} rollouts have no finite probabilities")
        chosen = choose(made.groups, self.job.policy, self.job.shape)
        rate = learning_rate(config.training, step, self.job.steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        updated = self._updated(chosen, step)
        if not math.isfinite(updated.loss):
            return self._diverged(f"the loss is {updated.loss}")
        if updated.updates and not math.isfinite(updated.norm):
            return self._diverged(f"the gradient norm is {updated.norm}")
        self.done += 1
        figures = round_figures(
            made,
            chosen,
            updated,
            time.monotonic() - started,
            self.job.shape,
            self.stop_signal.flags(self.first),
            self.device,
            passes=2 if self.job.decoding.guidance else 1,
            names=list(self.job.policy.rewards),
        )
        for name, count in figures.counts.items():
            self.counts[name] += count
        self._after_step(made, figures, rate)
        self.stop_reason = self.stop_signal.reason(*figures.flags)
        return None

    def _updated(self, chosen: Chosen, step: int) -> Updated:
        """The weights, updated: from the same rows each time, or from others where masks are drawn
        for them.
        """
        policy, seed = self.job.policy, seed_of(self.job.config, "mask")
        drawn = 1 if policy.loss == "mdpo" else policy.updates
        passes = [
            make_rows(chosen, policy, self.job.shape, seed=seed, iteration=step * drawn + number)
            for number in range(drawn)
        ]
        return self.update(passes * (policy.updates // drawn))

    def _after_step(self, made: Made, figures: RoundFigures, rate: float) -> None:
        reward = self.measured = float("nan")
        if self.is_scored():
            reward = self.rounds.greedy.mean_reward(self.held_out, self.done)
            self.note_score(-reward)
            if self.first and self.job.policy.samples:
                self._show_samples(made)
        if self.sink is not None:
            self.sink.log(
                step=self.done,
                epoch=made.epoch,
                learning_rate=rate,
                validation_reward=reward,
                peak_memory_bytes=peak_memory_bytes(self.device),
                **figures.columns,
                **{name: self.counts[name] for name in ("rollouts", "optimiser_steps")},
            )
        if self.is_due(self.job.config.training.checkpoint_every):
            self.save_checkpoint()

    def _show_samples(self, made: Made) -> None:
        """Pages of the first rollouts of this round."""
        job, tokenizer = self.job, self.rounds.tokenizer
        task, eos = get_task(job.task), job.shape.eos_token_id
        samples = [
            group.sample(number, job.policy.group_size, tokenizer, task, eos)
            for group in made.groups
            for number in range(job.policy.group_size)
        ]
        write_samples(
            job.run.path / "samples",
            self.done,
            samples[: job.policy.samples],
            tokenizer,
            job.shape,
            task,
            job.decoding,
            model=job.run.path.name,
        )

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the rounds done; the rollouts of earlier rounds can go then, and
        those of later ones, ordered ahead with older weights, are on disk.
        """
        self.rounds.settle()
        super().save_checkpoint()
        if self.first:
            self.rounds.kept.drop(before=steps_done(self.checkpoints.store))

    def _diverged(self, what: str) -> str:
        return (
            f"step {self.done + 1}: {what}; last good checkpoint: {self.last_good()}; try a "
            "smaller learning rate"
        )
