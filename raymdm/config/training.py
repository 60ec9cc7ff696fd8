"""Keys of the optimiser, of the workers and of what a run leaves behind."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section

Keep = Literal["metrics", "last", "best", "all"]
Stream = Literal["init", "order", "time", "mask", "probe", "decode"]
"""What training draws: first weights, rows of a step, mask rates, masks, the density's probe,
rollouts of a policy."""
Seed = Annotated[int, Field(ge=0)]


class TrainingSection(Section):
    """The optimiser's run."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps (of a policy: rounds of rollouts). Give this or `epochs`; with neither, one
    epoch."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training rows; an epoch has floor(rows / batch_size) steps."""
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimiser step over all workers and accumulation steps (the global batch); a
    policy has policy.prompts_per_step instead."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Most rows in one forward of one worker (the average, where they are packed), views not
    counted; null means the worker's share."""
    batching: Literal["padded", "bucketed", "packed"] = "padded"
    """How a worker's rows of a step are shared among its forwards, with equal results. `padded`: in
    order, padded to the longest; `bucketed`: rows of like length together; `packed`: without
    padding, about equally many tokens (and `micro_batch_size` rows on average) in each."""
    head_chunk: int | None = Field(default=None, ge=1)
    """Logits are held at once of as many numbers as this many predicted positions have; they are
    computed again in the backward pass. null holds all."""
    activation_checkpointing: bool = False
    """Keep only each block's input and compute the block again in the backward pass."""
    compile: bool = False
    """Compile every block with torch.compile (needs a C++ compiler on a CPU; not with ZeRO 3)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the decay after warm-up, down to zero at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up from zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    betas: list[float] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    """AdamW's moment decay rates."""
    gradient_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0 switches clipping off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the forward and backward passes (optimiser states stay fp32)."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between measurements of the held-out NELBO, or of a policy's held-out score; 0 measures
    at the end only."""
    validation_rows: int = Field(default=256, ge=1)
    """Validation rows used during training."""
    validation_draws: int = Field(default=4, ge=1)
    """Frozen masks per validation row."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 keeps only the one at the end."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU threads of each worker's tensor operations."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSection":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give training.steps or training.epochs, not both")
        return self


class CheckpointsSection(Section):
    """Where checkpoints are kept, and which; `training.checkpoint_every` says when one is made."""

    storage: str | None = None
    """A folder of this run alone, as a path that all workers see or a URI (`s3://bucket/run`,
    `gs://…`, `fsspec+az://…`), to which they are uploaded while training goes on. null: the run
    directory."""
    last: int = Field(default=1, ge=1)
    """How many of the newest stay (`keep: best` and `keep: all` keep more)."""
    milestone_every: int = Field(default=0, ge=0)
    """Those after a multiple of so many steps stay for good; 0 keeps none for that."""


class ClusterSection(Section):
    """The Ray workers of one run."""

    workers: int = Field(default=1, ge=1)
    """Data-parallel workers of Ray Train."""
    min_workers: int | None = Field(default=None, ge=1)
    """Train with as few as these where the cluster holds no more, and with up to `workers` as soon
    as it does; the result is the same. null: always with `workers`."""
    max_failures: int = Field(default=3, ge=0)
    """How often a run starts again from its last checkpoint after losing a worker, a node or Ray
    Train's controller, before it is given up."""
    cpus_per_worker: float = Field(default=0.5, gt=0)
    """Logical CPUs a worker reserves; leave some for Ray Data's own tasks."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """1 gives every worker a GPU of its own; 0 trains on the CPU, whatever there is."""
    address: str = "auto"
    """`auto` joins the running cluster that RAY_ADDRESS or a job names, else starts a local one;
    `local` always starts its own; else an address."""


class DeepspeedSection(Section):
    """What is DeepSpeed's."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage: 0 nothing, 1 optimiser states, 2 gradients too, 3 parameters too are sharded."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in the host's memory: the optimiser's states and update (stages 1 to 3), with
    `parameters` the sharded weights too (stage 3)."""
    overrides: dict[str, Any] = {}
    """Further keys of DeepSpeed's own configuration file, e.g. `zero_optimization` buckets."""


class WandbSection(Section):
    """Logging to Weights & Biases."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """`offline` writes to the run directory for a later `wandb sync`."""
    project: str = "raymdm"
    """Project the run appears in."""
