"""One Ray cluster for all tests that need one, and how hypothesis runs."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# No test asserts a time: the machine may be busy.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster with two CPUs, shut down through Ray's API at the end of the session."""
    import ray

    # "local": a plain init() would join a cluster that something else left running.
    ray.init("local", num_cpus=2, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
