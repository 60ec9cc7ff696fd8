"""Configurations with other values in `evaluation`: the response length above all."""

from typing import Any

from raymdm.config import Config
from raymdm.data.manifest import Manifest


def with_evaluation(config: Config, **values: Any) -> Config:
    """The configuration with other values in its section `evaluation`."""
    evaluation = config.evaluation.model_copy(update=values)
    return config.model_copy(update={"evaluation": evaluation})


def with_response_length(config: Config, length: int) -> Config:
    """The configuration with `evaluation.decoding.response_length` set."""
    decoding = config.evaluation.decoding.model_copy(update={"response_length": length})
    return with_evaluation(config, decoding=decoding)


def fixed_decoding(config: Config, manifest: Manifest | None) -> Config:
    """The configuration with its response length filled in, from the *training* responses; as it is
    where it has one, or where there is no prepared data.
    """
    if config.evaluation.decoding.response_length is not None or manifest is None:
        return config
    return with_response_length(config, manifest.splits["train"].longest_response)
