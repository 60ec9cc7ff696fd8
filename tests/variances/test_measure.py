"""The measurement end to end, on a real Ray cluster, with a model of a few hundred weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from prepared import tiny_config, write_prepared
from typer.testing import CliRunner

from raymdm.cli import app
from raymdm.config import Config
from raymdm.errors import ConfigurationError, DataError
from raymdm.training import RunDirectory
from raymdm.variances.figures import Figures
from raymdm.variances.measure import measure
from raymdm.variances.work import Work, forget_units

ESTIMATORS = ["standard", "mirror", "lattice", "ppots", "recommended", "adaptive", "ema", "isad"]
SMALL = {
    "rows": 8,
    "rates": 4,
    "draws": 96,
    "batches": 10,
    "sketch": 64,
    "resamples": 100,
    "estimators": ESTIMATORS,
}
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def config_of(run: Path, folder: Path, **values: object) -> Config:
    density = {"probe": {"rates": 8, "rows": 4, "masks": 1}, "fit_starts": 2}
    return tiny_config(
        run,
        folder,
        variance={**SMALL, **values},
        training={"batch_size": 8},
        estimator={"density": density},
    )


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, folder: Path, ray_cluster: None) -> Figures:
    run = tmp_path_factory.mktemp("run")
    return measure(config_of(run, folder, workers=2), run / "variance", lambda done, total: None)


def without_times(figures: Figures) -> dict[str, object]:
    content = figures.model_dump(exclude={"seconds"})
    content["settings"].pop("workers")
    return content


def test_the_result_does_not_depend_on_how_many_actors_there_are(
    figures: Figures, tmp_path: Path, folder: Path, ray_cluster: None
):
    alone = measure(config_of(tmp_path, folder, workers=1), tmp_path / "v", lambda d, t: None)
    assert without_times(alone) == without_times(figures)


def test_every_estimator_is_measured_or_left_out_with_a_reason(figures: Figures):
    assert [row.name for row in figures.estimators] == [
        name for name in ESTIMATORS if name != "isad"
    ]
    assert "task.delimiters" in figures.left_out["isad"]
    by_name = {row.name: row for row in figures.estimators}
    assert by_name["standard"].gradient.step.value == 1.0
    assert by_name["mirror"].forwards == 2
    assert by_name["mirror"].gradient.forward.value == pytest.approx(
        2 * by_name["mirror"].gradient.step.value
    )
    assert by_name["recommended"].limit == "stratified"
    assert set(figures.densities) == {"ppots", "recommended", "adaptive"}
    assert figures.densities["recommended"].coordinate == "share"


def test_ema_has_exactly_standards_gradient_and_another_loss(figures: Figures):
    ema = next(row for row in figures.estimators if row.name == "ema")
    assert ema.gradient.step.value == pytest.approx(1.0, abs=1e-12)
    assert ema.loss.step.value != 1.0
    assert ema.loss.predicted is None


@pytest.mark.slow
def test_gradients_of_a_small_subset_are_not_sketched(
    tmp_path: Path, folder: Path, ray_cluster: None
):
    config = config_of(
        tmp_path, folder, parameters=r"^norm\.", estimators=["standard"], draws=64, batches=8
    )
    found = measure(config, tmp_path / "variance", lambda done, total: None)
    assert found.sketch.coordinates == found.sketch.dimension == 16
    assert found.sketch.measured_error == pytest.approx(0.0, abs=1e-9)


def test_an_interrupted_measurement_goes_on_where_it_stopped(
    tmp_path: Path, folder: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(tmp_path, folder, estimators=["standard"])
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(config, tmp_path / "variance", stop)
    kept = list((tmp_path / "variance" / "units").rglob("*.npz"))
    assert len(kept) == 20
    counts: list[int] = []
    measure(config, tmp_path / "variance", lambda done, total: counts.append(done))
    assert counts[0] == 20
    # Until the figures are written nothing is thrown away.
    assert len(list((tmp_path / "variance" / "units").rglob("*.npz"))) == counts[-1]
    forget_units(config, tmp_path / "variance")
    assert not (tmp_path / "variance" / "units").exists()


def test_units_of_another_seed_are_not_reused(tmp_path: Path, folder: Path):
    from raymdm.data.manifest import read_manifest

    manifest = read_manifest(folder)
    one = config_of(tmp_path, folder)
    other = one.model_copy(update={"seed": 1})
    folders = {Work(c, manifest, tmp_path, lambda d, t: None).kept for c in (one, other)}
    assert len(folders) == 2


def test_too_few_rows_and_wrong_names_are_said_before_anything_starts(tmp_path: Path, folder: Path):
    def nothing(done: int, total: int) -> None:
        pytest.fail("nothing should have been measured")

    with pytest.raises(DataError, match=r"80 training rows .* needs 100.* lower variance\.rows"):
        measure(config_of(tmp_path, folder, rows=50), tmp_path, nothing)
    with pytest.raises(ConfigurationError, match="did you mean 'estimators/mirror'"):
        measure(config_of(tmp_path, folder, estimators=["miror"]), tmp_path, nothing)
    with pytest.raises(ConfigurationError, match="match no trained parameter"):
        measure(config_of(tmp_path, folder, parameters="lora_"), tmp_path, nothing)


def test_the_verb_writes_its_files_and_recommends(tmp_path: Path, folder: Path, ray_cluster: None):
    sets = {
        "run_dir": tmp_path / "run",
        "data.folder": folder,
        "training.batch_size": 8,
        "model.hidden_size": 16,
        "model.layers": 1,
        "model.heads": 2,
        "variance.estimators": "[mirror]",
        **{f"variance.{k}": v for k, v in SMALL.items() if k != "estimators"},
    }
    arguments = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["variance", "-c", "base", *arguments])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "run/variance/variance.json").read_text())
    assert {row["name"] for row in content["estimators"]} == {"standard", "mirror"}
    assert content["sentences"]
    assert "mirror" in done.output
    page = (tmp_path / "run/variance/variance.html").read_text()
    assert "<svg" in page
    assert not (tmp_path / "run/variance/units").exists()
    # The run can still be trained where it was measured.
    config = tiny_config(tmp_path / "run", folder)
    assert RunDirectory.open(config, "data", resume=False).config.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, folder: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another folder by --out"):
        measure(config_of(tmp_path, folder), tmp_path / "file", lambda done, total: None)


def test_a_run_without_a_model_is_refused(tmp_path: Path):
    done = CliRunner().invoke(app, ["variance", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_components_of_a_model_that_knows_nothing(figures: Figures):
    """An untrained model's cross-entropies hardly differ: its noise is that of counts and rates."""
    assert figures.loss.A.value > 0
    assert np.isfinite(figures.loss.total.value)
    assert figures.sketch.stated_error == pytest.approx(np.sqrt(2 / 64))
