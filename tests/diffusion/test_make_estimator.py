"""From a configuration or the name of a preset to a composition."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from tiny import fitted_density

from raymdm.config import config_files, load_config
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file
from raymdm.diffusion import TimeDensity, make_estimator
from raymdm.diffusion.compose import needs_probe, unweighted
from raymdm.diffusion.density import power_density
from raymdm.diffusion.law import AutoregressiveLaw, CountLaw, RateLaw
from raymdm.diffusion.masking import (
    ComplementMasker,
    IndependentMasker,
    Masker,
    MirrorMasker,
    RotationMasker,
)
from raymdm.diffusion.stratify import (
    AntitheticUniforms,
    IndependentUniforms,
    LatticeUniforms,
    StratifiedUniforms,
)
from raymdm.diffusion.time import ClippedTime, ImportanceTime, UniformTime
from raymdm.errors import ConfigurationError

PRESETS = [path.stem for path in config_files() if path.parent.name == "estimators"]
PROBED = [name for name in PRESETS if name.startswith("ppots") or name == "recommended"]
DENSITY = fitted_density()
PLAIN = RateLaw(IndependentMasker())
SQUARE_ROOT = ImportanceTime(power_density(1e-3))

# What the opening comment of every preset's file says: stratification, time, law.
SHIPPED: dict[str, tuple[Any, Any, Any]] = {
    "standard": (IndependentUniforms(), UniformTime(), PLAIN),
    "ema": (IndependentUniforms(), UniformTime(), PLAIN),
    "multisample2": (IndependentUniforms(), UniformTime(), RateLaw(IndependentMasker(2))),
    "mirror": (IndependentUniforms(), UniformTime(), RateLaw(MirrorMasker())),
    "rotation4": (IndependentUniforms(), UniformTime(), RateLaw(RotationMasker(4))),
    "complement": (IndependentUniforms(), UniformTime(), RateLaw(ComplementMasker())),
    "count": (LatticeUniforms(), UniformTime(), CountLaw()),
    "clipped": (IndependentUniforms(), ClippedTime(0.3, 0.8), PLAIN),
    "antithetic": (AntitheticUniforms(), UniformTime(), PLAIN),
    "strats": (StratifiedUniforms(None), UniformTime(), PLAIN),
    "lattice": (LatticeUniforms(), UniformTime(), PLAIN),
    "power": (IndependentUniforms(), SQUARE_ROOT, PLAIN),
    "adaptive": (
        IndependentUniforms(),
        ImportanceTime(power_density(1e-3).mixed(0.05)),
        PLAIN,
    ),
    "ppots": (IndependentUniforms(), ImportanceTime(DENSITY), PLAIN),
    "ppots_pole": (IndependentUniforms(), ImportanceTime(DENSITY), PLAIN),
    "ppots_lattice": (LatticeUniforms(), ImportanceTime(DENSITY), PLAIN),
    "ppots_mirror": (IndependentUniforms(), ImportanceTime(DENSITY), RateLaw(MirrorMasker())),
    "ppots_mirror_strats": (
        StratifiedUniforms(None),
        ImportanceTime(DENSITY),
        RateLaw(MirrorMasker()),
    ),
    "recommended": (LatticeUniforms(), ImportanceTime(DENSITY), CountLaw()),
    "isad": (
        IndependentUniforms(),
        UniformTime(),
        RateLaw(IndependentMasker(), delimiter_rates="raised", delta=0.2),
    ),
    "isad_exact": (
        IndependentUniforms(),
        UniformTime(),
        RateLaw(IndependentMasker(), delimiter_rates="exact", delta=0.2),
    ),
    "syrm": (IndependentUniforms(), UniformTime(), PLAIN),
    "arm": (IndependentUniforms(), UniformTime(), AutoregressiveLaw()),
}

STRATIFICATIONS = {
    "none": IndependentUniforms(),
    "strata": StratifiedUniforms(5),
    "lattice": LatticeUniforms(),
    "antithetic": AntitheticUniforms(),
}
MASKERS = {
    ("independent", 3): RateLaw(IndependentMasker(3)),
    ("mirror", 2): RateLaw(MirrorMasker()),
    ("rotation", 3): RateLaw(RotationMasker(3)),
    ("complement", 2): RateLaw(ComplementMasker()),
    ("count", 2): CountLaw(2),
}
TIMES = {
    "uniform": UniformTime(),
    "importance": ImportanceTime(DENSITY),
    "clipped": ClippedTime(0.1, 0.6),
}


def section(*keys: str) -> EstimatorSection:
    """The composition of some keys over a preset, as `--set` puts it together."""
    return load_config(["estimators/ppots"], [f"estimator.{key}" for key in keys]).estimator


def refusal(*keys: str) -> str:
    """The one line that a composition is refused with."""
    with pytest.raises(ConfigurationError) as caught:
        section(*keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_time(one: Any, other: Any) -> bool:
    """Whether two samplers draw alike; densities hold arrays, which `==` cannot compare."""
    if isinstance(one, ImportanceTime) and isinstance(other, ImportanceTime):
        return np.array_equal(one.density.cells, other.density.cells)
    return one == other


def test_every_preset_is_listed_above():
    assert set(SHIPPED) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_what_its_file_says(name: str):
    stratify, time, law = SHIPPED[name]
    estimator = make_estimator(name, DENSITY if name in PROBED else None)
    assert estimator.stratify == stratify
    assert same_time(estimator.time, time)
    assert estimator.law == law
    assert estimator.with_syntax == (name == "syrm")
    assert estimator.normalize == "sample"
    content = EstimatorSection.model_validate(read_file(f"estimators/{name}")["estimator"])
    assert (content.control.kind == "ema") == (name == "ema")
    assert needs_probe(content) == (name in PROBED)
    assert make_estimator(content, DENSITY) == make_estimator(name, DENSITY)


@pytest.mark.parametrize(
    ("name", "kind", "moment", "target", "probe"),
    [
        ("ppots", "epr", "loss", "iid", "grid"),
        ("ppots_mirror", "epr", "loss", "iid", "grid"),
        ("ppots_mirror_strats", "epr", "loss", "iid", "grid"),
        ("ppots_pole", "epr_pole", "loss", "iid", "count"),
        ("ppots_lattice", "epr_pole", "loss", "stratified", "count"),
        ("recommended", "epr_pole", "gradient", "stratified", "count"),
    ],
)
def test_every_probed_preset_says_what_is_measured(
    name: str, kind: str, moment: str, target: str, probe: str
):
    density = load_config([f"estimators/{name}"]).estimator.density
    found = (density.kind, density.moment, density.target, density.probe.kind)
    assert found == (kind, moment, target, probe)
    assert density.mixing == 0.05


@pytest.mark.parametrize(
    ("stratify", "masker", "time"), list(product(STRATIFICATIONS, MASKERS, TIMES)), ids=str
)
def test_every_composition_is_made_from_keys_alone(
    stratify: str, masker: tuple[str, int], time: str
):
    keys = [
        f"time.stratify={stratify}",
        f"time.sampler={time}",
        "time.bounds=[0.1, 0.6]",
        f"masker.kind={masker[0]}",
        f"masker.views={masker[1]}",
        *(["time.strata=5"] if stratify == "strata" else []),
    ]
    if (masker[0], time) == ("count", "clipped"):
        assert "needs time.sampler uniform or importance" in refusal(*keys)
        return
    estimator = make_estimator(section(*keys), DENSITY)
    assert estimator.stratify == STRATIFICATIONS[stratify]
    assert same_time(estimator.time, TIMES[time])
    assert estimator.law == MASKERS[masker]


@pytest.mark.parametrize("delimiters", ["raised", "exact"])
@pytest.mark.parametrize(
    ("kind", "masker"),
    [
        ("independent", IndependentMasker(2)),
        ("mirror", MirrorMasker()),
        ("rotation", RotationMasker(2)),
        ("complement", ComplementMasker()),
    ],
)
def test_delimiters_syntax_and_control_compose_with_every_rate_masker(
    kind: str, masker: Masker, delimiters: str
):
    found = section(
        f"masker.kind={kind}",
        "masker.views=2",
        f"delimiters.rates={delimiters}",
        "delimiters.delta=0.4",
        "eligible=response_and_syntax",
        "control.kind=ema",
        "normalize=token",
        "epsilon=0.01",
    )
    estimator = make_estimator(found, DENSITY)
    assert estimator.law == RateLaw(masker, 0.01, delimiters, 0.4)  # type: ignore[arg-type]
    assert estimator.with_syntax
    assert estimator.normalize == "token"
    assert found.control.kind == "ema"


@pytest.mark.parametrize("kind", ["epr", "epr_pole", "tabulated", "power", "ap"])
@pytest.mark.parametrize("target", ["iid", "stratified"])
@pytest.mark.parametrize("moment", ["loss", "gradient"])
def test_every_density_is_made_from_keys_alone(kind: str, target: str, moment: str):
    keys = [f"density.kind={kind}", f"density.target={target}", f"density.moment={moment}"]
    if (kind, moment) == ("ap", "gradient"):
        assert "set density.moment to loss" in refusal(*keys)
        return
    found = section(*keys)
    assert needs_probe(found) == (kind not in ("power", "ap"))
    estimator = make_estimator(found, DENSITY if needs_probe(found) else None)
    assert isinstance(estimator.time, ImportanceTime)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["time.bounds=[0.8, 0.3]"], r"bounds must be 0 <= low < high <= 1, got 0\.8 and 0\.3"),
        (["time.bounds=[0.5, 1.5]"], r"bounds must be 0 <= low < high <= 1"),
        (["time.strata=4"], "time.strata is read under time.stratify strata only"),
        (["time.stratify=lattice", "time.strata=4"], "time.strata is read under"),
        (["density.kind=power", "density.file=d.json"], "density.kind power is not read from"),
        (["density.kind=ap", "density.file=d.json"], "density.kind ap is not read from"),
        (["masker.kind=mirror"], "masker.kind mirror has exactly two views: set masker.views to 2"),
        (["masker.kind=complement", "masker.views=3"], "masker.kind complement has exactly two"),
        (["masker.kind=rotation"], "masker.kind rotation needs masker.views of 2 or more"),
        (
            ["masker.kind=count", "delimiters.rates=exact"],
            "masker.kind count masks all tokens alike: estimator.delimiters.rates must be same",
        ),
        (["masker.kind=count", "control.kind=ema"], "control.kind ema needs a mask rate"),
        (["time.sampler=clipped", "control.kind=ema"], "control.kind ema needs a mask rate"),
        (["objective=autoregressive"], "masks nothing, so estimator.time must stay at its"),
        (
            ["objective=autoregressive", "time.sampler=uniform", "masker.views=2"],
            "masks nothing, so estimator.masker must stay",
        ),
        (
            ["objective=autoregressive", "time.sampler=uniform", "delimiters.rates=exact"],
            "masks nothing, so estimator.delimiters must stay",
        ),
        (
            ["objective=autoregressive", "time.sampler=uniform", "control.kind=ema"],
            "masks nothing, so estimator.control must stay",
        ),
        (
            ["objective=autoregressive", "time.sampler=uniform", "eligible=response_and_syntax"],
            "predicts the response only",
        ),
    ],
)
def test_a_composition_that_cannot_be_is_refused_with_the_reason(keys: list[str], reason: str):
    with pytest.raises(ConfigurationError, match=reason):
        section(*keys)
    assert refusal(*keys).startswith("configuration: estimator")


def test_an_adaptive_density_starts_without_a_probe():
    """From the square root, or flat for exact counts, which have no pole at t = 0."""
    rates = make_estimator(section("density.kind=ap", "epsilon=0.01")).time
    assert same_time(rates, ImportanceTime(power_density(0.01).mixed(0.05)))
    counts = make_estimator(section("density.kind=ap", "masker.kind=count")).time
    assert same_time(counts, ImportanceTime(TimeDensity(np.ones(1000))))
    assert same_time(make_estimator(section("density.kind=ap"), DENSITY).time, TIMES["importance"])


def test_mixing_reaches_the_densities_that_need_no_fit():
    estimator = make_estimator(section("density.kind=power", "density.mixing=0.5"))
    assert same_time(estimator.time, ImportanceTime(power_density(1e-3).mixed(0.5)))


def test_a_probe_runs_the_same_composition_with_plain_rates():
    found = unweighted(section("masker.kind=mirror", "masker.views=2", "time.stratify=lattice"))
    estimator = make_estimator(found)
    assert (estimator.time, estimator.stratify) == (UniformTime(), IndependentUniforms())
    assert estimator.law == RateLaw(MirrorMasker())


def test_a_mapping_will_do():
    estimator = make_estimator({"masker": {"views": 3}, "epsilon": 0.1, "normalize": "token"})
    assert estimator.law == RateLaw(IndependentMasker(3), 0.1)
    assert estimator.normalize == "token"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'estimators/mirror'"):
        make_estimator("miror")


@pytest.mark.parametrize("name", PROBED)
def test_importance_sampling_without_a_density_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="needs a density"):
        make_estimator(name)


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigurationError, match=r"estimator\.masker\.view'.*masker\.views"):
        make_estimator({"masker": {"view": 2}})
