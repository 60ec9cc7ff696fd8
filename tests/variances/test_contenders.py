"""Which estimators are measured, and with what."""

from pathlib import Path

import numpy as np
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.diffusion import TimeDensity
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.variances.assemble import _values
from raymdm.variances.contenders import choose, probe_kind, same_objective
from raymdm.variances.laboratory import Contender


def chosen(
    tmp_path: Path,
    names: list[str],
    estimator: dict[str, object] | None = None,
    marked: bool = True,
) -> tuple[dict[str, Contender], dict[str, str], Config]:
    folder = write_prepared(tmp_path / "data", marked=marked)
    sections = {"variance": {"estimators": names}, "estimator": estimator or {}}
    config = tiny_config(tmp_path / "run", folder, **sections)
    contenders, left_out = choose(config, read_manifest(folder))
    return {one.name: one for one in contenders}, left_out, config


def test_standard_is_always_there_and_a_preset_keeps_the_runs_epsilon(tmp_path: Path):
    found, _, _ = chosen(tmp_path, ["mirror"], {"epsilon": 0.01, "normalize": "token"})
    assert list(found) == ["standard", "mirror"]
    assert {(c.section.epsilon, c.section.normalize) for c in found.values()} == {(0.01, "token")}


def test_a_density_file_serves_the_runs_own_composition_only(tmp_path: Path):
    TimeDensity(np.array([2.0, 1.0])).save(tmp_path / "density.json")
    own = {"time": {"sampler": "importance"}, "density": {"file": str(tmp_path / "density.json")}}
    found, _, _ = chosen(tmp_path, ["configured", "ppots", "power", "recommended"], own)
    assert found["configured"].density is not None
    assert probe_kind(found["configured"]) is None
    assert [probe_kind(found[n]) for n in ("ppots", "power", "recommended")] == [
        "grid",
        None,
        "count",
    ]


def test_a_broken_density_file_is_named_before_anything_is_measured(tmp_path: Path):
    own = {"time": {"sampler": "importance"}, "density": {"file": str(tmp_path / "none.json")}}
    with pytest.raises(CheckpointError, match=r"none\.json"):
        chosen(tmp_path, ["configured"], own)


def test_a_file_without_an_estimator_is_refused(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("training: {steps: 3}\n")
    with pytest.raises(ConfigurationError, match="has no section estimator"):
        chosen(tmp_path, [str(tmp_path / "mine.yaml")])


def test_marks_decide_whether_isad_and_syrm_can_be_measured(tmp_path: Path):
    names = ["isad", "syrm", "arm"]
    found, left_out, _ = chosen(tmp_path / "with", names)
    assert set(found) == {"standard", "isad", "syrm"}
    assert "no mask rate" in left_out["arm"]
    found, left_out, _ = chosen(tmp_path / "without", names, marked=False)
    assert set(found) == {"standard"}
    assert "task.delimiters" in left_out["isad"]


def test_another_target_is_not_compared_as_if_it_were_the_same(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("estimator: {normalize: token}\n")
    names = ["clipped", "isad", "isad_exact", "syrm", "count", str(tmp_path / "mine.yaml")]
    found, _, _ = chosen(tmp_path, names)
    same = {
        Path(name).stem: same_objective(one.section, found["standard"].section)
        for name, one in found.items()
    }
    assert same == {
        "standard": True,
        "clipped": False,
        "isad": False,
        "isad_exact": True,
        "syrm": False,
        "count": True,
        "mine": False,
    }


def test_a_contenders_key_changes_with_all_that_its_measurement_depends_on(tmp_path: Path):
    found, _, _ = chosen(tmp_path, ["ppots", "mirror"])
    steep = TimeDensity(np.array([2.0, 1.0]))
    section = found["ppots"].section
    keys = {Contender("a", section).key, Contender("a", section, steep).key, found["mirror"].key}
    assert len(keys) == 3
    assert Contender("a", section).key == Contender("b", section).key


def test_tokens_normalised_together_make_long_rows_no_part_of_the_variance():
    """Every token costs 1: the batch's ratio is 1 whatever rows it has, and so has no variance."""
    units = [
        {
            "loss": np.full((2, 2, 1), float(length)),
            "sketch": np.full((2, 2, 1, 3), 2.0 * length),
            "length": np.array(length),
        }
        for length in (10, 30)
    ]
    for values in _values(units, by_token=True).values():
        np.testing.assert_allclose(values, 0.0, atol=1e-12)
    assert _values(units, by_token=False)["loss"].max() == 30
