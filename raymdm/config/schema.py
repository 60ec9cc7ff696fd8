"""The whole configuration of a run: every section, and the rules between sections."""

from pydantic import model_validator

from raymdm.config.data import DataSection, PrepareSection, TaskSection
from raymdm.config.estimator import EstimatorSection
from raymdm.config.evaluation import CompareSection, EvaluationSection
from raymdm.config.model import ModelSection
from raymdm.config.policy import PolicySection
from raymdm.config.section import Section
from raymdm.config.sweep import SweepSection
from raymdm.config.training import (
    CheckpointsSection,
    ClusterSection,
    DeepspeedSection,
    Keep,
    Seed,
    Stream,
    TrainingSection,
    WandbSection,
)
from raymdm.config.variance import VarianceSection


class Config(Section):
    """Everything that `raymdm` reads. Defaults here are the product's; files and `--set` win."""

    run_dir: str = "runs/run"
    """Folder of the run (a sweep: of all its runs)."""
    seed: Seed = 0
    """Seed of every addressed stream of a run: init, order, time, mask, probe."""
    stream_seeds: dict[Stream, Seed] = {}
    """Seeds of single streams in place of `seed`, e.g. `{order: 0}`; `sweep.vary` sets them."""
    keep: Keep = "last"
    """What stays on disk at the end: `metrics`, `last`, `best` or `all` checkpoints and models."""
    imports: list[str] = []
    """The user's own modules to import first (they may register tasks)."""

    task: TaskSection = TaskSection()
    prepare: PrepareSection = PrepareSection()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    estimator: EstimatorSection = EstimatorSection()
    training: TrainingSection = TrainingSection()
    policy: PolicySection | None = None
    """Not null: the weights are trained from rewards, by `raymdm rl`, not on responses."""
    checkpoints: CheckpointsSection = CheckpointsSection()
    cluster: ClusterSection = ClusterSection()
    deepspeed: DeepspeedSection = DeepspeedSection()
    evaluation: EvaluationSection = EvaluationSection()
    sweep: SweepSection = SweepSection()
    compare: CompareSection = CompareSection()
    variance: VarianceSection = VarianceSection()
    wandb: WandbSection = WandbSection()

    @model_validator(mode="after")
    def _batch_divides(self) -> "Config":
        cluster = self.cluster
        least = cluster.min_workers or cluster.workers
        if least > cluster.workers:
            raise ValueError(
                f"cluster.min_workers {least} is more than cluster.workers {cluster.workers}"
            )
        if least < cluster.workers and not self.training.checkpoint_every:
            raise ValueError(
                "cluster.min_workers needs training.checkpoint_every: a change of the number of "
                "workers goes back to the last checkpoint"
            )
        key, rows = "training.batch_size", self.training.batch_size
        if self.policy is not None:
            key, rows = "policy.prompts_per_step", self.policy.prompts_per_step
        for workers in range(least, cluster.workers + 1):
            if rows % workers:
                among = "" if workers == cluster.workers else " (cluster.min_workers allows fewer)"
                raise ValueError(
                    f"{key} {rows} is not a multiple of cluster.workers {workers}{among}; choose "
                    "as many as every worker can have an equal share of"
                )
        return self

    @model_validator(mode="after")
    def _policy_fits(self) -> "Config":
        policy = self.policy
        if policy is None:
            return self
        if self.estimator.objective != "masked":
            raise ValueError("policy trains masked models; set estimator.objective to masked")
        if self.deepspeed.zero_stage == 3 and policy.rollouts.actors is None:
            raise ValueError(
                "policy.rollouts.actors null lets every worker roll out with a whole model, which "
                "deepspeed.zero_stage 3 does not leave it; give a number of actors, or stage 2"
            )
        if policy.rollouts.actors is not None and self.cluster.min_workers is not None:
            raise ValueError(
                "cluster.min_workers lets workers take whatever room there is, and "
                "policy.rollouts.actors need theirs; leave one of them out"
            )
        if policy.incremental_training and self.training.steps is None:
            raise ValueError(
                "policy.incremental_training has epochs of any length; give training.steps"
            )
        return self

    @model_validator(mode="after")
    def _memory_fits_stage(self) -> "Config":
        stage, offload = self.deepspeed.zero_stage, self.deepspeed.offload
        least = {"none": 0, "optimizer": 1, "parameters": 3}[offload]
        if stage < least:
            raise ValueError(
                f"deepspeed.offload {offload} needs deepspeed.zero_stage {least} or more, not "
                f"{stage}"
            )
        if self.training.compile and stage == 3:
            raise ValueError(
                "training.compile does not work with deepspeed.zero_stage 3, which gathers weights "
                "between the compiled operations; use stage 2 or leave it off"
            )
        return self

    @model_validator(mode="after")
    def _mixture_has_an_end(self) -> "Config":
        if len(self.data.sources) > 1 and self.training.steps is None:
            raise ValueError(
                "data.sources has several sources, each with epochs of its own; give training.steps"
            )
        return self
