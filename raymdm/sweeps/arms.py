"""What arms do to `training.steps` and `training.batch_size`: multiples, and equal compute."""

from collections.abc import Mapping
from typing import Any

from raymdm.config import Config
from raymdm.config.sweep import ArmSection
from raymdm.diffusion.passes import Passes, count_passes, step_passes
from raymdm.errors import ConfigurationError


def with_times(config: Config, section: ArmSection, arm: str) -> Config:
    """The configuration with an arm's multiples. Raises ConfigurationError without steps."""
    if section.times and config.training.steps is None:
        # Of epochs, a larger batch would take fewer steps.
        raise ConfigurationError(f"arm {arm!r}: times needs training.steps, not epochs")
    multiples = {key: getattr(config.training, key) * by for key, by in section.times.items()}
    return with_training(config, **multiples)


def equal_forwards(configs: Mapping[str, Config]) -> dict[str, Config]:
    """The arms of one seed and setting with as many steps as make their forwards equal.

    Args:
        configs: by arm; the first one's forwards are the measure.

    Returns:
        The same with the steps that come nearest.

    Raises:
        ConfigurationError: an arm with steps of its own, or one whose probe leaves it none.
    """
    (first, measure), *_ = configs.items()
    steps = measure.training.steps
    if steps is None:
        raise ConfigurationError("sweep.equalise forwards needs training.steps, not epochs")
    wanted = _passes(measure, steps).forwards
    equal = {first: measure}
    for arm, config in list(configs.items())[1:]:
        if config.training.steps != steps:
            raise ConfigurationError(
                f"arm {arm!r} has training.steps of its own, but under sweep.equalise forwards "
                f"they follow from the forwards of {first!r}; leave them out of the arm"
            )
        left = wanted - _passes(config, 0).forwards
        own = round(left / step_passes(config.estimator, config.training.batch_size))
        if own < 1:
            raise ConfigurationError(
                f"arm {arm!r}: sweep.equalise forwards leaves it no step of the {wanted} forwards "
                f"that {first!r} has; give more training.steps or a smaller probe"
            )
        equal[arm] = with_training(config, steps=own)
    return equal


def with_training(config: Config, **values: Any) -> Config:
    """The configuration with other values in its section `training`."""
    training = config.training.model_copy(update=values)
    return config.model_copy(update={"training": training})


def _passes(config: Config, steps: int) -> Passes:
    return count_passes(config.estimator, config.training.batch_size, steps)
