"""Units of work over the actors of a cluster, finished ones kept on disk until the end.

Units are pure functions of the seed and of fixed size, so the result does not depend on how many
actors share them, and the same command goes on with the missing ones after an interruption.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util import ActorPool

from raymdm.cluster import worker_slots
from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.errors import ClusterError, DataError, RaymdmError, RunError
from raymdm.training.run_directory import identity
from raymdm.variances.laboratory import Laboratory
from raymdm.variances.units import Arrays, Unit

Advance = Callable[[int, int], None]
"""Called with (units done, units in all)."""


class Work:
    """Units over the actors of a cluster, finished ones kept in a folder."""

    def __init__(self, config: Config, manifest: Manifest, folder: Path, advance: Advance) -> None:
        self.config, self.advance = config, advance
        self.kept = units_folder(config, manifest, folder)
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be written ({error.strerror}); give another folder by --out"
            ) from error
        self.done, self.total = 0, 0
        self._actors: list[Any] = []
        self.parameters = self.coordinates = 0

    def run(self, units: Sequence[Unit]) -> dict[str, Arrays]:
        """What every unit found, by its name."""
        found = {unit.name: arrays for unit in units if (arrays := self._read(unit)) is not None}
        self._count(len(found))
        missing = [unit for unit in units if unit.name not in found]
        if not self._actors:
            self._start()
        pool = ActorPool(self._actors)
        for name, arrays in _results(pool, missing):
            if not all(np.isfinite(a).all() for k, a in arrays.items() if not _may_be_nan(k)):
                raise RunError(
                    f"variance: {name} met a loss or gradient that is not finite; check the model "
                    "(raymdm evaluate), or use training.precision fp32"
                )
            self._write(name, arrays)
            found[name] = arrays
            self._count(1)
        return found

    def _start(self) -> None:
        cluster, threads = self.config.cluster, self.config.training.threads_per_worker
        slots = worker_slots(threads, cluster.gpus_per_worker)
        if slots < 1:
            raise ClusterError(
                f"raymdm variance needs an actor of {threads} CPUs and {cluster.gpus_per_worker} "
                "GPUs, and no node of the cluster has them; change training.threads_per_worker or "
                "cluster.gpus_per_worker"
            )
        count = min(self.config.variance.workers or slots, slots, max(1, self.total))
        actor = ray.remote(
            num_cpus=threads,
            num_gpus=cluster.gpus_per_worker,
            # A lost actor comes back and its unit is run again: it gives the same numbers.
            max_restarts=3,
            max_task_retries=3,
        )(Worker)
        self._actors = [actor.remote(self.config) for _ in range(count)]
        with _plain_errors():
            self.parameters, self.coordinates = ray.get(self._actors[0].sizes.remote())

    def _count(self, units: int) -> None:
        self.done += units
        self.advance(self.done, self.total)

    def _read(self, unit: Unit) -> Arrays | None:
        try:
            with np.load(self.kept / f"{unit.name}.npz", allow_pickle=False) as file:
                return dict(file)
        except OSError:
            return None

    def _write(self, name: str, arrays: Arrays) -> None:
        temporary = self.kept / f".{name}.npz"
        try:
            np.savez(temporary, allow_pickle=False, **arrays)  # type: ignore[arg-type]
            temporary.rename(self.kept / f"{name}.npz")
        except OSError as error:
            raise RunError(
                f"{self.kept}: cannot be written ({error.strerror}); make room and run it again: "
                "what is finished is kept"
            ) from error


def _results(pool: ActorPool, units: Sequence[Unit]) -> Iterator[tuple[str, Arrays]]:
    """What the actors return, as it comes."""
    with _plain_errors():
        yield from pool.map_unordered(_submit, units)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's error without Ray's wrapping; anything else as one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RaymdmError):
            raise cause from error
        reason = str(cause or error).strip().splitlines()
        raise RunError(
            f"variance: an actor failed ({type(cause or error).__name__}: "
            f"{reason[-1] if reason else 'no message'}); what is finished is kept: run it again"
        ) from error


def units_folder(config: Config, manifest: Manifest, folder: Path) -> Path:
    """Where the units of this measurement are kept; another measurement has another place."""
    how_much = {"estimators", "workers", "resamples", "forwards"}
    key = fingerprint(
        {
            **identity(config.model_dump()),
            "data": manifest.fingerprint,
            "variance": config.variance.model_dump(exclude=how_much),
            "weights": _weights_age(config),
        }
    )
    return folder / "units" / key


def forget_units(config: Config, folder: Path) -> None:
    """Remove this measurement's finished units, once their figures are written."""
    kept = units_folder(config, read_manifest(Path(config.data.folder)), folder)
    shutil.rmtree(kept, ignore_errors=True)
    if not any(kept.parent.iterdir()):
        kept.parent.rmdir()


def _submit(actor: Any, unit: Unit) -> Any:
    return actor.run.remote(unit)


class Worker:
    """An actor: one laboratory, any number of units."""

    def __init__(self, config: Config) -> None:
        self.laboratory = Laboratory(config)

    def run(self, unit: Unit) -> tuple[str, Arrays]:
        """The unit's name and what it found."""
        return unit.name, unit.run(self.laboratory)

    def sizes(self) -> tuple[int, int]:
        """Weights of the model, and of the subset whose gradient is measured."""
        chosen = sum(p.numel() for p in self.laboratory.parameters.values())
        return sum(p.numel() for p in self.laboratory.model.parameters()), chosen


def _may_be_nan(name: str) -> bool:
    # Shares of a grid probe leave out the other shares' rates.
    return name in ("second", "mean_square")


def _weights_age(config: Config) -> float | None:
    """When the starting weights were written: units of other weights must not be reused."""
    if config.model.init_from is None or not Path(config.model.init_from).is_dir():
        return None
    return max(p.stat().st_mtime for p in Path(config.model.init_from).iterdir())
