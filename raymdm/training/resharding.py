"""A checkpoint of one number of workers, loaded by another, through DeepSpeed's universal format.

ZeRO cuts optimiser states (stage 3: weights too) by the number of workers. The universal format has
one file a weight and state, from which any number of workers takes its shares.
"""

import argparse
import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from raymdm.training.agreement import node_folder
from raymdm.training.engine import import_deepspeed


@contextmanager
def any_size(engine: Any, folder: Path, tag: str, saved_by: int) -> Iterator[Path]:
    """The folder that this engine can load the checkpoint from, within the block.

    Args:
        engine: DeepSpeed's, as started.
        folder: the checkpoint; its state is in the folder `tag` of it.
        tag: DeepSpeed's name for the checkpoint.
        saved_by: number of workers that wrote it.
    """
    same = saved_by == torch.distributed.get_world_size()
    if same or not engine.zero_optimization():
        # Without ZeRO every worker has the whole state, and one of them has written it.
        yield folder
        return
    groups = engine.optimizer.param_groups
    settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    with node_folder("universal", lambda made: _convert(folder / tag, made / tag)) as converted:
        engine._config.load_universal_checkpoint = True
        try:
            yield converted
        finally:
            engine._config.load_universal_checkpoint = False
    # Stage 3 gives every group the settings of the first one, weight decay for the norms too, and
    # all of them one and the same count of steps, which each would then raise for the others.
    for group, own in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(own)
    for state in engine.optimizer.optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _convert(source: Path, target: Path) -> None:
    import_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    target.mkdir()
    # One after the other: its pools of processes would fork a worker that has threads.
    arguments = argparse.Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=False,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(arguments)
