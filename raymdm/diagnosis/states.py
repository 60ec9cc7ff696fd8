"""What DeepSpeed and AdamW hold beside activations and logits, by ZeRO stage.

Read from DeepSpeed 0.19.8: `runtime/zero/stage_1_and_2.py`, `runtime/zero/stage3.py`,
`runtime/fp16/unfused_optimizer.py` (bf16 without ZeRO) and `runtime/engine.py`; and from PyTorch's
AdamW. All figures are bytes of one worker. P trained weights, P/W of them a worker's share.
"""

from dataclasses import dataclass

from raymdm.diagnosis.activations import FLOAT
from raymdm.diagnosis.parameters import Parameters
from raymdm.diagnosis.parts import Parts

DOUBLE = 8
ALL_REDUCE = 500_000_000
"""Elements that DeepSpeed copies together for an all-reduce without ZeRO."""


@dataclass(frozen=True)
class Plan:
    """What decides the states.

    Attributes:
        parameters: of the model.
        width: bytes of a weight in the precision of training.
        workers: W.
        stage: of ZeRO.
        offload: `none`, `optimizer` or `parameters`.
        accumulates: whether a step has more than one forward.
        gpu: whether each worker has a GPU.
        bucket: elements of a reduction, two buckets of it where `overlaps`.
        overlaps: whether reductions run beside the backward pass.
        reuse: elements within which a gathered weight is kept for its next use (stage 3).
        prefetch: elements gathered ahead (stage 3).
        group: elements that the optimiser updates at once (stage 3).
    """

    parameters: Parameters
    width: int
    workers: int
    stage: int
    offload: str
    accumulates: bool
    gpu: bool
    bucket: int
    overlaps: bool
    reuse: int
    prefetch: int
    group: int

    @property
    def share(self) -> float:
        """P/W."""
        return self.parameters.trained / self.workers

    @property
    def bucket_bytes(self) -> float:
        """Of the buckets: allocated at once, but on a CPU only what is written takes memory."""
        if self.gpu:
            return self.width * self.bucket * (2 if self.overlaps else 1)
        return self.copied_bytes

    @property
    def copied_bytes(self) -> float:
        """Of a bucket's content, copied once more."""
        return self.width * min(self.bucket, self.parameters.trained)

    def adamw_bytes(self, elements: float, largest: float) -> float:
        """What an update computes with: on a GPU the roots of all second moments, on a CPU two
        tensors of the size of one weight. Offloaded states use the fused update, which needs none.
        """
        if self.offload != "none":
            return 0.0
        return FLOAT * elements if self.gpu else 2 * FLOAT * largest


@dataclass(frozen=True)
class Held:
    """Bytes of one worker beside activations and logits, at the moments where they differ.

    Attributes:
        always: on the device, all the time.
        logits: on the device beyond that, at the top of a step's last backward pass.
        backward: at its end.
        reduction: when the last bucket of gradients is reduced; activations are gone by then.
        update: during the optimiser's step.
        host: in the host's memory, where something is offloaded.
    """

    always: Parts
    logits: Parts
    backward: Parts
    reduction: Parts
    update: Parts
    host: Parts


def held(plan: Plan) -> Held:
    """The states of a plan."""
    if plan.stage == 0:
        return _unsharded(plan)
    return _sharded_weights(plan) if plan.stage == 3 else _sharded_states(plan)


def _unsharded(plan: Plan) -> Held:
    """Stage 0: torch's AdamW in fp32, DeepSpeed's half-precision wrapper around it in bf16."""
    trained, width = plan.parameters.trained, plan.width
    copies = 0 if width == FLOAT else FLOAT * trained
    gradients = width * trained
    # The wrapper does not know that a single worker has nobody to reduce with.
    reduces = plan.workers > 1 or width < FLOAT
    return Held(
        always=Parts(weights=width * plan.parameters.total, optimizer=2 * FLOAT * trained + copies),
        logits=Parts(gradients=gradients * plan.accumulates),
        backward=Parts(gradients=gradients),
        reduction=Parts(gradients=gradients, buffers=width * min(ALL_REDUCE, trained) * reduces),
        update=Parts(
            gradients=gradients + copies,
            buffers=plan.adamw_bytes(trained, plan.parameters.largest),
        ),
        host=Parts(),
    )


def _sharded_states(plan: Plan) -> Held:
    """Stages 1 and 2: a worker's share of fp32 weights (also beside fp32 ones) and of moments."""
    parameters, width, share = plan.parameters, plan.width, plan.share
    offloads = plan.offload != "none"
    states = 3 * FLOAT * share
    # One weight's gradient on its way to the host; the norm of one in double precision.
    scratch = width * parameters.largest * offloads
    norm = DOUBLE * parameters.largest
    # What is kept of the reduced gradients; on the host they go straight to their place.
    kept = 0.0 if offloads else width * share
    if plan.stage == 1:
        # All gradients stay with their weights until the step's last backward pass is done.
        whole = float(width * parameters.trained)
        before, after = whole * plan.accumulates, whole
        waiting = float(width * max(0, parameters.trained - plan.bucket))
        bucket = plan.bucket_bytes if plan.gpu else 0.0
    else:
        before = waiting = kept * plan.accumulates
        # A bucket that is full before the end is reduced on the way.
        after = before + kept * (parameters.trained > plan.bucket)
        bucket = plan.bucket_bytes
    # A bucket is copied to be reduced; then the part that is kept is copied out of it.
    copy = plan.copied_bytes * (plan.workers > 1) - kept
    reducing = plan.bucket_bytes + max(copy, norm * offloads, 0.0)
    updating = max(min(norm, DOUBLE * share), FLOAT * share + plan.adamw_bytes(share, share))
    on_host = Parts(
        optimizer=states,
        gradients=FLOAT * share + width * share * (plan.stage == 2 and plan.accumulates),
        buffers=width * share + scratch,
    )
    return Held(
        always=Parts(
            weights=width * parameters.total, optimizer=states * (not offloads), buffers=scratch
        ),
        logits=Parts(gradients=before),
        backward=Parts(gradients=after, buffers=bucket),
        reduction=Parts(gradients=waiting + kept, buffers=reducing),
        update=Parts(gradients=kept, buffers=updating * (not offloads)),
        host=on_host if offloads else Parts(),
    )


def _sharded_weights(plan: Plan) -> Held:
    """Stage 3: weights in shares too; whole ones are gathered where they are used."""
    parameters, width, share = plan.parameters, plan.width, plan.share
    offloads = plan.offload != "none"
    weights = Parts(weights=width * parameters.total / plan.workers)
    states = Parts(optimizer=3 * FLOAT * share, gradients=width * share)
    on_host = (states if offloads else Parts()) + (
        weights if plan.offload == "parameters" else Parts()
    )
    on_device = (Parts() if offloads else states) + (
        Parts() if plan.offload == "parameters" else weights
    )
    # A worker alone has whole weights already, if they are on its device.
    gathers = plan.workers > 1 or (plan.gpu and plan.offload == "parameters")
    # At the turn from forward to backward, the weights of both sides within the reuse distance.
    around = max(plan.reuse / 2, parameters.head) + plan.prefetch
    one = max(parameters.block, parameters.head) + plan.prefetch
    group, norm = min(share, plan.group), DOUBLE * parameters.largest / plan.workers
    updated = FLOAT * group + plan.adamw_bytes(group, group)
    return Held(
        always=on_device + Parts(buffers=plan.bucket_bytes),
        logits=Parts(buffers=width * min(parameters.total, around) * gathers),
        backward=Parts(buffers=width * min(parameters.total, one) * gathers),
        # Gloo, which reduces on CPUs, works on another copy.
        reduction=Parts(buffers=plan.copied_bytes * (1 if plan.gpu else 2)),
        update=Parts(buffers=0.0 if offloads else max(norm, updated)),
        host=on_host + Parts(gradients=FLOAT * share * offloads),
    )
