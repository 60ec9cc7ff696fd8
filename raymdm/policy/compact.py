"""Traces made small: for the way from one process to another, and for disk.

Right after a step a position holds what the step predicted, or what it held at the start: a mask.
So states need a bit per position. Where something else stands, as where a finished response is
filled up with EOS, it is listed. 128 steps of 512 tokens take about 0.65 MB, and everything but the
confidence, a weight and a picture's colour, is kept exactly: ratios are taken to it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from raymdm.decoding import Trace
from raymdm.errors import CheckpointError

_COUNT = "traces"
"""Key in the header of a file: how many traces it has."""


def compact(trace: Trace) -> dict[str, np.ndarray]:
    """A trace of S steps and n positions as small arrays.

    `start` and `predictions` [n], [S, n] in uint16 where the tokens allow that, else int32;
    `standing` uint8[S, ⌈n/8⌉], bits: true where the prediction stands after the step; `other_at`
    int32[k], `other` [k]: tokens that are neither the prediction nor the start's, by their place
    in [S · n]; `confidence` float16[S, n]; `positions` int32[n]; `log_probability` float32[S, n]
    where the trace has them.
    """
    start, states, predictions = (
        part.numpy() for part in (trace.start, trace.states, trace.predictions)
    )
    standing = states == predictions
    elsewhere = ~standing & (states != start)
    (other_at,) = elsewhere.reshape(-1).nonzero()
    greatest = max(
        (int(part.max()) for part in (start, states, predictions) if part.size), default=0
    )
    small = np.uint16 if greatest <= np.iinfo(np.uint16).max else np.int32
    arrays = {
        "start": start.astype(small),
        "predictions": predictions.astype(small),
        "standing": np.packbits(standing, axis=1),
        "other_at": other_at.astype(np.int32),
        "other": states.reshape(-1)[other_at].astype(small),
        "confidence": trace.confidence.numpy().astype(np.float16),
        "positions": trace.positions.numpy().astype(np.int32),
    }
    if trace.log_probability is not None:
        arrays["log_probability"] = trace.log_probability.numpy().astype(np.float32)
    return arrays


def expand(arrays: Mapping[str, np.ndarray]) -> Trace:
    """The trace that was made compact; its confidence is rounded to float16."""
    start: np.ndarray = arrays["start"].astype(np.int64)
    predictions: np.ndarray = arrays["predictions"].astype(np.int64)
    standing = np.unpackbits(arrays["standing"], axis=1, count=len(start)).astype(bool)
    states = np.where(standing, predictions, start)
    states.reshape(-1)[arrays["other_at"]] = arrays["other"]
    drawn = arrays.get("log_probability")
    return Trace(
        start=torch.from_numpy(start),
        states=torch.from_numpy(states),
        predictions=torch.from_numpy(predictions),
        confidence=torch.from_numpy(arrays["confidence"].astype(np.float32)),
        positions=torch.from_numpy(arrays["positions"].astype(np.int64)),
        # A copy: what Ray hands over cannot be written to.
        log_probability=None if drawn is None else torch.from_numpy(drawn.copy()),
    )


def size(arrays: Mapping[str, np.ndarray]) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for array in arrays.values())


@dataclass(frozen=True)
class TraceFile:
    """What a file of traces holds.

    Attributes:
        traces: in the order in which they were written.
        arrays: what belongs to them, such as rewards [G, S].
        metadata: by name.
    """

    traces: list[Trace]
    arrays: dict[str, Tensor]
    metadata: dict[str, str]


def write_traces(
    path: Path,
    traces: Sequence[Trace],
    arrays: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write traces to a safetensors file, all or nothing, and return its path.

    Args:
        path: its folder must be there.
        traces: those of a group, say.
        arrays: what belongs to them.
        metadata: a few texts.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        f"trace.{place}.{name}": array
        for place, trace in enumerate(traces)
        for name, array in compact(trace).items()
    }
    content |= {f"array.{name}": np.array(values) for name, values in (arrays or {}).items()}
    header = {_COUNT: str(len(traces)), "metadata": json.dumps(dict(metadata or {}))}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(content, partial, header)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_traces(path: Path) -> TraceFile:
    """What `write_traces` wrote.

    Raises:
        CheckpointError: there is no such file, or it is broken.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata()
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        of_traces: list[dict[str, np.ndarray]] = [{} for _ in range(int(header[_COUNT]))]
        arrays = {}
        for name, array in content.items():
            kind, _, rest = name.partition(".")
            if kind == "array":
                arrays[rest] = torch.from_numpy(array)
            else:
                place, _, part = rest.partition(".")
                of_traces[int(place)][part] = array
        return TraceFile(list(map(expand, of_traces)), arrays, json.loads(header["metadata"]))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: no whole file of traces ({reason}); remove it and its round is made anew"
        ) from error
