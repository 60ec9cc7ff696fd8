"""The DeepSpeed engine of one worker, its process group, and full weights out of it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import nn

from raymdm.config import Config, merge_overlay
from raymdm.errors import ConfigurationError
from raymdm.models.lora import merged, whole_weights


def deepspeed_config(config: Config, micro_batch: int, accumulation: int) -> dict[str, Any]:
    """DeepSpeed's own configuration for a run.

    Raises:
        ConfigurationError: `deepspeed.overrides` sets what other keys of ours decide.
    """
    training = config.training
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.gradient_clip,
        "zero_optimization": {"stage": config.deepspeed.zero_stage, **_offload(config)},
        "zero_allow_untested_optimizer": True,
        # Offloaded states are updated by torch's own fused AdamW, which needs nothing compiled.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": training.precision == "bf16"},
        "steps_per_print": 10**9,
    }
    overrides = config.deepspeed.overrides
    zero = overrides.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ConfigurationError("deepspeed.overrides.zero_optimization must hold keys and values")
    owned = {*ours, "optimizer", "scheduler", "fp16", "train_batch_size"} - {"zero_optimization"}
    taken = sorted(owned & set(overrides))
    if taken or "stage" in zero:
        raise ConfigurationError(
            f"deepspeed.overrides sets {', '.join(taken) or 'zero_optimization.stage'}; use "
            "raymdm's own keys for it (training.*, deepspeed.zero_stage)"
        )
    return merge_overlay(ours, overrides)


def _offload(config: Config) -> dict[str, Any]:
    """DeepSpeed's keys for what is kept in the host's memory."""
    host = {"device": "cpu", "pin_memory": config.cluster.gpus_per_worker > 0}
    keys = {
        "none": [],
        "optimizer": ["offload_optimizer"],
        "parameters": ["offload_optimizer", "offload_param"],
    }
    return dict.fromkeys(keys[config.deepspeed.offload], host)


def start_engine(model: nn.Module, config: Config, micro_batch: int, accumulation: int) -> Any:
    """A DeepSpeed engine around the model, in the process group that is already there."""
    deepspeed = import_deepspeed()
    training = config.training
    trained = [p for p in model.parameters() if p.requires_grad]
    # A weight that is sharded already (ZeRO 3) keeps its own shape beside.
    matrices = [p for p in trained if len(getattr(p, "ds_shape", p.shape)) > 1]
    vectors = [p for p in trained if len(getattr(p, "ds_shape", p.shape)) <= 1]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,  # Set before every step. In bf16 DeepSpeed takes a first one of its own.
        betas=(training.betas[0], training.betas[1]),
        fused=True if config.deepspeed.offload != "none" else None,
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(config, micro_batch, accumulation),
        dist_init_required=True,
    )
    if training.precision == "bf16" and not config.deepspeed.zero_stage:
        # Of that step, on gradients of zero, AdamW would keep that it was one.
        engine.optimizer.optimizer.state.clear()
    if is_unsharded(engine) and torch.distributed.get_world_size() == 1:
        # With nobody to share them, DeepSpeed would copy all gradients into a buffer and back.
        engine.enable_backward_allreduce = False
    return engine


def is_unsharded(engine: Any) -> bool:
    """Whether the optimiser is torch's own: in fp32 without ZeRO."""
    return isinstance(engine.optimizer, torch.optim.Optimizer)


def import_deepspeed() -> Any:
    """DeepSpeed, on this machine's accelerator, without its shared-memory CPU operation.

    Only inference uses that operation; compiling it takes a minute at the first run, and a killed
    compilation leaves a lock on which later runs hang.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextlib.contextmanager
def process_group_of_one(gpu: bool) -> Iterator[None]:
    """A process group with this process alone, for a worker outside Ray Train."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if gpu else "gloo",
            store=torch.distributed.HashStore(),
            rank=0,
            world_size=1,
        )
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ[name] = value
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    # The group stays for the next run of a reused process: DeepSpeed keeps references to it.
    yield


def step_engine(engine: Any) -> float:
    """Update the weights from the gradients of all workers; the norm before clipping."""
    norm = None
    if is_unsharded(engine):  # nobody else keeps the norm
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
    engine.step()
    return float(engine.get_global_grad_norm()) if norm is None else norm


def global_sum(*values: float | torch.Tensor, device: torch.device) -> list[float]:
    """Each value summed over all workers, in one float64 all-reduce."""
    total = torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
    if torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total.tolist()


def gather_slots(
    values: np.ndarray, slots: np.ndarray, batch_size: int, device: torch.device
) -> np.ndarray:
    """What all workers say of their rows, float64[C, N] in slot order, from this one's [C, B].

    Each slot belongs to one worker, so the sum over workers adds only zeros: exact in any order.
    """
    whole = torch.zeros(len(values), batch_size, dtype=torch.float64)
    whole[:, torch.as_tensor(slots)] = torch.from_numpy(values)
    if torch.distributed.get_world_size() > 1:
        shared = whole.to(device)
        torch.distributed.all_reduce(shared)
        whole = shared.cpu()
    return whole.numpy()


def trained_state(engine: Any) -> dict[str, torch.Tensor] | None:
    """The weights that are trained, by the module's own names and in its own precision, on rank 0
    (None elsewhere); every rank must call it.
    """
    deepspeed = import_deepspeed()
    first = torch.distributed.get_rank() == 0
    state: dict[str, torch.Tensor] = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            sharded = [parameter] if hasattr(parameter, "ds_id") else []
            with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
                if first:
                    state[name] = parameter.detach().cpu().clone()
    return state if first else None


def full_state(engine: Any) -> dict[str, torch.Tensor] | None:
    """All weights by our names, adapters merged, on rank 0 (None elsewhere); every rank must call
    it.
    """
    deepspeed = import_deepspeed()
    first = torch.distributed.get_rank() == 0
    state: dict[str, torch.Tensor] = {}
    for name, module, parameters in whole_weights(engine.module):
        sharded = [p for p in parameters if hasattr(p, "ds_id")]
        with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
            if first:
                state[name] = merged(module, parameters)
    return state if first else None
