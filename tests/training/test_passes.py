"""What a run counts is what goes through the model, forward and backward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import start_run, tiny_config, write_prepared

from raymdm.config.loading import read_file
from raymdm.models import Backbone
from raymdm.training import run_in_process

GRID = {"kind": "grid", "rates": 8, "rows": 5, "masks": 2}
COUNT = {"kind": "count", "draws": 16, "rows": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Without validation rows, whose forwards are not counted.
    rows = {"train": 80, "validation": 0, "test": 10}
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", rows)


class Counter:
    """Rows that go through every model, forward and backward."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.forwards = self.backwards = 0
        compute = Backbone.forward

        def counted(model: Backbone, input_ids: torch.Tensor, *given: Any, **named: Any) -> Any:
            self.forwards += len(input_ids)
            found = compute(model, input_ids, *given, **named)
            if found.requires_grad:
                found.register_hook(lambda _: self._back(len(input_ids)))
            return found

        patch.setattr(Backbone, "forward", counted)

    def _back(self, rows: int) -> None:
        self.backwards += rows


@pytest.mark.parametrize(
    ("preset", "density", "probed"),
    [
        ("standard", {}, 0),
        ("rotation4", {}, 0),
        ("arm", {}, 0),
        ("adaptive", {}, 0),
        ("ppots", {"probe": GRID}, 8 * 5 * 2),
        ("ppots_mirror", {"probe": GRID}, 8 * 5 * 2 * 2),
        ("ppots_mirror", {"probe": GRID, "moment": "gradient"}, 8 * 5 * 2 * 2),
        ("ppots_pole", {"probe": COUNT}, 16),
        ("recommended", {"probe": COUNT}, 16),
    ],
)
def test_a_run_counts_its_passes(
    preset: str,
    density: dict[str, Any],
    probed: int,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    estimator = read_file(f"estimators/{preset}")["estimator"]
    estimator["density"] = {**estimator.get("density", {}), "fit_starts": 1, **density}
    training = {"steps": 3, "batch_size": 16, "micro_batch_size": 7}
    config = tiny_config(tmp_path / "run", folder, estimator=estimator, training=training)
    job = start_run(config)
    counter = Counter(monkeypatch)
    run_in_process(job)
    status = job.run.status()
    assert (status["forwards"], status["backwards"]) == (counter.forwards, counter.backwards)
    assert status["probe_forwards"] == probed
    assert counter.forwards - probed == 3 * 16 * config.estimator.masker.views


def test_a_density_from_a_file_needs_no_probe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = read_file("estimators/ppots")["estimator"]
    estimator["density"] |= {"probe": GRID, "fit_starts": 1}
    first = start_run(tiny_config(tmp_path / "one", folder, estimator=estimator))
    run_in_process(first)
    estimator["density"]["file"] = str(first.run.density)
    second = start_run(tiny_config(tmp_path / "two", folder, estimator=estimator))
    counter = Counter(monkeypatch)
    run_in_process(second)
    assert second.run.status()["forwards"] == counter.forwards == 6 * 16
    assert second.run.status()["probe_forwards"] == 0
