"""kill -9 of a sweep's driver, then the same command: as if nothing had happened."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import dump_yaml
from raymdm.sweep import sweep

pytestmark = pytest.mark.ray

PATIENCE = 400.0


def _finished(runs: Path) -> dict[Path, int]:
    """The metrics of the trials that have been scored, with their time of writing."""
    scored = runs.glob("trials/*/scores.json")
    return {p: p.stat().st_mtime_ns for p in (s.with_name("metrics.parquet") for s in scored)}


def _wait(reached: Callable[[], bool], driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert driver.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _writers(driver: subprocess.Popen) -> list[psutil.Process]:
    """The processes in which its trials run."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "Trainable" in " ".join(child.cmdline())]


def _verdict(runs: Path) -> dict[str, Any]:
    content = json.loads((runs / "summary.json").read_text())
    return {"metrics": content["metrics"], "sentences": content["sentences"]}


def test_a_killed_sweep_goes_on_with_what_is_missing(ray_cluster: None, tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data")
    arms = {"standard": {}, "mirror": {"configs": ["estimators/mirror"]}}
    design = {"arms": arms, "seeds": [0, 1]}
    config, undisturbed = (
        tiny_config(tmp_path / name, folder, sweep=design, compare={"metric": "nelbo"})
        for name in ("killed", "undisturbed")
    )
    runs = tmp_path / "killed"
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config))
    command = [sys.executable, "-m", "raymdm.sweep", "-c", str(file)]

    with open(tmp_path / "log.txt", "wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(lambda: len(_finished(runs)) >= 1, driver)
        finally:
            writers = _writers(driver)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    # Ray ends them some seconds after their driver; nothing may write beside the next call.
    assert writers
    assert not psutil.wait_procs(writers, timeout=PATIENCE)[1]
    before = _finished(runs)
    assert 1 <= len(before) < 4

    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    after = _finished(runs)
    assert len(after) == 4
    assert {path: after[path] for path in before} == before
    attempts = [
        trial["attempts"] for trial in json.loads((runs / "sweep.json").read_text())["trials"]
    ]
    assert all(count <= 2 for count in attempts)

    sweep(undisturbed)
    assert _verdict(runs) == _verdict(tmp_path / "undisturbed")
