"""The seed of each stream of a run: the run's own, unless its configuration names another."""

from raymdm.config import Config
from raymdm.config.training import Stream
from raymdm.diffusion.compose import needs_probe


def seed_of(config: Config, stream: Stream) -> int:
    """The seed that training draws a stream from."""
    return config.stream_seeds.get(stream, config.seed)


def streams_read(config: Config) -> set[Stream]:
    """The streams that a run draws anything from; two runs that agree in them are the same."""
    streams: set[Stream] = {"order"}
    if config.model.init_from is None or config.model.lora.rank is not None:
        streams.add("init")
    if config.policy is not None:
        streams.add("decode")
        if config.policy.loss != "mdpo":
            streams.add("mask")
        return streams
    if config.estimator.objective == "masked":
        streams |= {"time", "mask"}
    if needs_probe(config.estimator) and config.estimator.density.file is None:
        streams.add("probe")
    return streams
