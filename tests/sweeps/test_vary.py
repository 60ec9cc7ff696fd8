"""The seeds of a sweep vary what they are told to, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared import start_run, tiny_config, write_prepared

from raymdm.config import Config
from raymdm.config.training import Stream
from raymdm.diffusion import Estimator
from raymdm.errors import ConfigurationError
from raymdm.sweeps import make_design
from raymdm.sweeps.manifest import write_manifest
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.run_directory import identity
from raymdm.verdict import read_sweep

STREAMS = ("init", "order", "time", "mask")
# One step of all rows, so that each sample's noise can be looked up whatever the order.
TRAINING = {"steps": 1, "batch_size": 80}
PROBE = {"rates": 8, "rows": 4, "masks": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def _trials(run_dir: Path, folder: Path, vary: list[str] | None, **sections: Any) -> list[Config]:
    arm = sections.pop("arm", {})
    sweep = {"arms": {"one": arm}, "seeds": [3, 4], "vary": vary}
    config = tiny_config(run_dir, folder, training=TRAINING, sweep=sweep, **sections)
    return [trial.config for trial in make_design(config)]


def _drawn(config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What a run of the configuration draws from each stream in its only step."""
    seen: dict[str, np.ndarray] = {}
    compute = Estimator.view_losses

    def recorded(
        self: Estimator, model: Any, mask: int, rows: Any, t: np.ndarray, noise: torch.Tensor
    ) -> torch.Tensor:
        order = np.array(rows.samples)
        weights = torch.cat([p.detach().flatten() for p in model.module.parameters()])
        seen.update(order=order, time=t, init=weights.numpy().copy())
        seen["mask"] = noise[:, np.argsort(order)].numpy()
        return compute(self, model, mask, rows, t, noise)

    with monkeypatch.context() as patch:
        patch.setattr(Estimator, "view_losses", recorded)
        run_in_process(start_run(config))
    return seen


@pytest.mark.parametrize("vary", [["mask"], ["init", "order"], ["time"], None])
def test_two_seeds_differ_in_what_varies_and_in_nothing_else(
    vary: list[str] | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (_drawn(c, monkeypatch) for c in _trials(tmp_path / "runs", folder, vary))
    differ = {stream for stream in STREAMS if not np.array_equal(first[stream], second[stream])}
    assert differ == set(STREAMS if vary is None else vary)


def test_a_probe_varies_by_itself(folder: Path, tmp_path: Path) -> None:
    arm = {"configs": ["estimators/ppots"], "overlay": {"estimator": {"density": {"probe": PROBE}}}}
    densities = {}
    for vary in (["probe"], ["order"]):
        trials = _trials(tmp_path / vary[0], folder, vary, arm=arm, model={"layers": 1})
        for config in trials:
            run_in_process(start_run(config))
        texts = [RunDirectory(config.run_dir).density.read_text() for config in trials]
        densities[vary[0]] = texts
    assert densities["probe"][0] != densities["probe"][1]
    assert densities["order"][0] == densities["order"][1] == densities["probe"][0]


def test_the_first_seed_is_the_run_that_it_would_be_alone(tmp_path: Path) -> None:
    frozen = _trials(tmp_path, Path("data"), ["mask"])
    plain = _trials(tmp_path, Path("data"), None)
    assert [config.stream_seeds for config in plain] == [{}, {}]
    assert frozen[0] == plain[0]
    assert frozen[1].stream_seeds == {"init": 3, "order": 3, "time": 3, "probe": 3}
    assert frozen[1].seed == 4


def test_the_seeds_of_streams_are_part_of_a_runs_identity(tmp_path: Path) -> None:
    second = _trials(tmp_path, Path("data"), ["mask"])[1]
    plain = _trials(tmp_path, Path("data"), None)[1]
    assert identity(second.model_dump()) != identity(plain.model_dump())
    # Runs that began before there were any keep the fingerprint they have.
    assert "stream_seeds" not in identity(plain.model_dump())


@pytest.mark.parametrize(
    ("vary", "sections", "message"),
    [
        (["maks"], {}, "sweep.vary.0: Input should be 'init'"),
        ([], {}, "sweep.vary: List should have at least 1 item"),
        (["mask"], {"stream_seeds": {"order": 1}}, "give one of them"),
        (["probe"], {}, "draws nothing from sweep.vary .probe.*: its runs would all be the same"),
        (["init"], {"model": {"init_from": "there"}}, "it reads mask, order, time"),
        (["mask"], {"estimator": {"objective": "autoregressive"}}, "it reads init, order"),
    ],
)
def test_what_cannot_vary_is_refused(
    vary: list[Stream], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _trials(Path("runs"), Path("data"), vary, **sections)


def test_the_sweep_remembers_what_varies(tmp_path: Path) -> None:
    sweep = {"arms": {"one": {}}, "seeds": [3, 4]}
    for vary in (["mask"], None):
        config = tiny_config(tmp_path, Path("data"), sweep={**sweep, "vary": vary})
        write_manifest(config, make_design(config), tmp_path, "process")
        assert read_sweep(tmp_path).varied == (None if vary is None else ("mask",))


def test_an_arm_may_not_have_seeds_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match="sets stream_seeds; that is the same for"):
        _trials(Path("runs"), Path("data"), None, arm={"overlay": {"stream_seeds": {"mask": 1}}})
