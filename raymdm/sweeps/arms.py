"""What arms do to `training.steps` and `training.batch_size`: multiples, and equal compute."""

from collections.abc import Callable, Mapping
from typing import Any

from raymdm.config import Config
from raymdm.config.sweep import ArmSection
from raymdm.diffusion.passes import Passes, count_passes
from raymdm.errors import ConfigurationError

Cost = Callable[[str, Passes], float]
"""What an arm's passes cost."""


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
    return _equal(configs, lambda arm, passes: passes.forwards, "forwards")


def equal_seconds(
    configs: Mapping[str, Config], seconds_per_pass: Mapping[str, float]
) -> dict[str, Config]:
    """The same with as many steps as take as long as the first arm's, its probe included.

    Args:
        configs: by arm; the first one's seconds are the measure.
        seconds_per_pass: by arm, of one row's forward and backward.

    Raises:
        ConfigurationError: as for `equal_forwards`.
    """
    return _equal(configs, lambda arm, passes: passes.work * seconds_per_pass[arm], "seconds")


def with_training(config: Config, **values: Any) -> Config:
    """The configuration with other values in its section `training`."""
    training = config.training.model_copy(update=values)
    return config.model_copy(update={"training": training})


def _equal(configs: Mapping[str, Config], cost: Cost, unit: str) -> dict[str, Config]:
    (first, measure), *_ = configs.items()
    steps = measure.training.steps
    if steps is None:
        raise ConfigurationError(f"sweep.equalise {unit} needs training.steps, not epochs")
    wanted = cost(first, _passes(measure, steps))
    equal = {first: measure}
    for arm, config in list(configs.items())[1:]:
        if config.training.steps != steps:
            raise ConfigurationError(
                f"arm {arm!r} has training.steps of its own, but under sweep.equalise {unit} "
                f"they follow from the {unit} of {first!r}; leave them out of the arm"
            )
        before_any = cost(arm, _passes(config, 0))
        of_a_step = cost(arm, _passes(config, 1)) - before_any
        own = round((wanted - before_any) / of_a_step)
        if own < 1:
            raise ConfigurationError(
                f"arm {arm!r}: sweep.equalise {unit} leaves it no step of the {wanted:.6g} {unit} "
                f"that {first!r} has; give more training.steps or a smaller probe"
            )
        equal[arm] = with_training(config, steps=own)
    return equal


def _passes(config: Config, steps: int) -> Passes:
    return count_passes(config.estimator, config.training.batch_size, steps)
