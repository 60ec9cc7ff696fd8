"""The memory of one worker of a run: an estimate from its configuration.

At each moment of a step a worker holds its states (`states.py`) and activations and logits
(`activations.py`); the largest sum is what it needs. Rows are taken at their longest, with all of
their responses predicted. Not in it: the process itself (Python, libraries, CUDA's context) and
what an allocator keeps beyond the tensors in it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raymdm.config import Config
from raymdm.diagnosis.activations import (
    FLOAT,
    Activations,
    count_activations,
    forward_logit_bytes,
    logit_bytes,
    passing_bytes,
)
from raymdm.diagnosis.lengths import Lengths
from raymdm.diagnosis.parameters import Parameters, count_parameters
from raymdm.diagnosis.parts import Parts
from raymdm.diagnosis.states import Held, Plan, held
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.gradients import BLOCK, CACHED, gradient_parameters
from raymdm.models import ModelShape
from raymdm.models.weights import PRECISIONS, empty_model
from raymdm.training.engine import deepspeed_config
from raymdm.training.starting import ready_to_train


@dataclass(frozen=True)
class Forward:
    """What one forward of one worker is given.

    Attributes:
        rows: of data.
        views: of each row.
        length: tokens of each view.
        predicted: positions whose logits are computed.
        count: forwards of one optimiser step.
    """

    rows: int
    views: int
    length: int
    predicted: int
    count: int

    @property
    def tokens(self) -> int:
        """Of all views."""
        return self.rows * self.views * self.length


@dataclass(frozen=True)
class Estimate:
    """Bytes of one worker.

    Attributes:
        gpu: whether the device is a GPU; else device and host are the same memory.
        parameters: of the model.
        forward: the largest one.
        device: what is on the device, moment by moment.
        host: what is in the host's memory beside it, moment by moment (GPUs only).
    """

    gpu: bool
    parameters: Parameters
    forward: Forward
    device: Mapping[str, Parts]
    host: Mapping[str, Parts]

    @property
    def peak(self) -> str:
        """The moment that needs most of the device."""
        return max(self.device, key=lambda moment: self.device[moment].total)

    @property
    def device_bytes(self) -> float:
        """Needed of the device."""
        return self.device[self.peak].total

    @property
    def host_bytes(self) -> float:
        """Needed of the host's memory by a worker with a GPU."""
        return max((parts.total for parts in self.host.values()), default=0.0)


def estimate(config: Config, shape: ModelShape, lengths: Lengths) -> Estimate:
    """The memory of a worker of this run.

    Raises:
        ConfigurationError: `deepspeed.overrides` sets what other keys of ours decide.
    """
    training, lora = config.training, config.model.lora
    parameters = count_parameters(shape, lora)
    width = PRECISIONS[training.precision].itemsize
    forward = largest_forward(config, lengths)
    plan = _plan(config, parameters, width, forward)
    activations = count_activations(
        shape, forward.tokens, width, lora, recompute=training.activation_checkpointing
    )
    vocabulary, chunk = shape.vocabulary_size, training.head_chunk
    selected = width * forward.predicted * shape.hidden_size
    logits = logit_bytes(forward.predicted, vocabulary, width, chunk)
    states = held(plan)
    kept = Parts(activations=activations.kept + selected)
    head = 0.0 if lora.rank is not None else width * parameters.head
    moments = {
        "logits": states.always + states.logits + kept + Parts(logits=logits),
        "backward": states.always + _backward(states, activations, selected, head),
        "reduction": states.always + states.reduction,
        "update": states.always + states.update,
    }
    if needs_probe(config.estimator) and config.estimator.density.file is None:
        moments["probe"] = _probe(config, shape, lengths, parameters, width)
    if not plan.gpu:
        offloaded = {moment: parts + states.host for moment, parts in moments.items()}
        return Estimate(False, parameters, forward, offloaded, {})
    # A model is made or read on the CPU and then moved, but in stage 3 weight by weight.
    at_once = parameters.total if plan.stage < 3 else max(parameters.head, parameters.largest)
    host = {
        "start": Parts(weights=width * at_once),
        "training": states.host,
        # The first worker gathers all weights there to write the model.
        "export": states.host + Parts(weights=width * parameters.total),
    }
    return Estimate(True, parameters, forward, moments, host)


def largest_forward(config: Config, lengths: Lengths) -> Forward:
    """The largest forward of one worker: `micro_batch_size` of the longest rows."""
    training, masker = config.training, config.estimator.masker
    share = training.batch_size // config.cluster.workers
    rows = min(training.micro_batch_size or share, share)
    # Of two complementary views each position is predicted in one.
    covered = 1 if masker.kind == "complement" else masker.views
    return Forward(
        rows=rows,
        views=masker.views,
        length=lengths.row,
        predicted=rows * covered * lengths.response,
        count=math.ceil(share / rows),
    )


def _plan(config: Config, parameters: Parameters, width: int, forward: Forward) -> Plan:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    settings = deepspeed_config(config, forward.rows, forward.count)
    zero = DeepSpeedZeroConfig(**settings["zero_optimization"])
    return Plan(
        parameters=parameters,
        width=width,
        workers=config.cluster.workers,
        stage=config.deepspeed.zero_stage,
        offload=config.deepspeed.offload,
        accumulates=forward.count > 1,
        gpu=config.cluster.gpus_per_worker > 0,
        bucket=int(zero.reduce_bucket_size),
        overlaps=bool(zero.overlap_comm) and config.deepspeed.zero_stage < 3,
        reuse=int(zero.max_reuse_distance),
        prefetch=int(zero.prefetch_bucket_size),
        group=int(zero.sub_group_size),
    )


def _backward(states: Held, activations: Activations, selected: float, head: float) -> Parts:
    """The larger of both ends of the backward pass: all activations, or all gradients."""
    inside = activations.block + activations.work
    top = states.logits + Parts(gradients=head, activations=activations.kept + selected + inside)
    bottom = states.backward + Parts(activations=activations.lowest + activations.work)
    return max(top, bottom, key=lambda parts: parts.total)


def _probe(
    config: Config, shape: ModelShape, lengths: Lengths, parameters: Parameters, width: int
) -> Parts:
    """Before the first step: the whole model on the rows that a density is probed with.

    A probe of gradients takes one row at a time, and the gradients of all chosen weights at once.
    """
    density, masker = config.estimator.density, config.estimator.masker
    probe, chunk = density.probe, config.training.head_chunk
    if density.moment == "gradient":
        lora, recompute = config.model.lora, config.training.activation_checkpointing
        model = ready_to_train(empty_model(shape), config)
        chosen = sum(p.numel() for p in gradient_parameters(model, probe.parameters).values())
        one = count_activations(shape, lengths.row, width, lora, recompute=recompute)
        return Parts(
            weights=width * parameters.total,
            gradients=width * chosen,
            # Where each coordinate goes in the sketch, in int32.
            buffers=FLOAT * (chosen if chosen <= CACHED else BLOCK),
            activations=one.kept + one.block + one.work,
            logits=logit_bytes(lengths.response, shape.vocabulary_size, width, chunk),
        )
    if probe.kind == "count":
        rows, views = min(probe.batch_size, probe.draws), 1
    else:
        rows, views = min(probe.batch_size, probe.rows), masker.views
    tokens, predicted = rows * views * lengths.row, rows * views * lengths.response
    blocks = Parts(activations=passing_bytes(shape, tokens, width))
    head = Parts(
        activations=width * shape.hidden_size * (2 * tokens + predicted),
        logits=forward_logit_bytes(predicted, shape.vocabulary_size, width, chunk),
    )
    larger = max(blocks, head, key=lambda parts: parts.total)
    return Parts(weights=width * parameters.total) + larger
