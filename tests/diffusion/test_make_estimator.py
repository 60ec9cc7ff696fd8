"""From a configuration or the name of a preset to a composition."""

import pytest
from tiny import fitted_density

from raymdm.config import config_files
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file
from raymdm.diffusion import make_estimator
from raymdm.diffusion.masking import IndependentMasker, MirrorMasker
from raymdm.diffusion.time import ImportanceTime, UniformTime
from raymdm.errors import ConfigurationError

PRESETS = [path.stem for path in config_files() if path.parent.name == "estimators"]


def test_the_papers_methods_are_shipped():
    assert {"standard", "multisample2", "mirror", "ppots", "ppots_mirror"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_what_its_file_says(name: str):
    section = EstimatorSection.model_validate(read_file(f"estimators/{name}")["estimator"])
    density = fitted_density()
    estimator = make_estimator(name, density)
    importance = section.time.sampler == "importance"
    assert estimator.time == (ImportanceTime(density) if importance else UniformTime())
    kinds = {"mirror": MirrorMasker, "independent": IndependentMasker}
    assert type(estimator.masker) is kinds[section.masker.kind]
    assert estimator.masker.views == section.masker.views
    assert estimator.epsilon == section.epsilon
    assert estimator == make_estimator(section, density)


def test_a_mapping_will_do():
    estimator = make_estimator({"masker": {"views": 3}, "epsilon": 0.1, "normalize": "token"})
    assert estimator.masker == IndependentMasker(3)
    assert (estimator.epsilon, estimator.normalize) == (0.1, "token")


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'estimators/mirror'"):
        make_estimator("miror")


@pytest.mark.parametrize("name", ["ppots", "ppots_mirror"])
def test_importance_sampling_without_a_density_is_refused(name: str):
    with pytest.raises(ConfigurationError, match="needs a density"):
        make_estimator(name)


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigurationError, match=r"estimator\.masker\.view'.*masker\.views"):
        make_estimator({"masker": {"view": 2}})
