"""One Ray cluster for all tests that need one."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local cluster with two CPUs, shut down through Ray's API at the end of the session."""
    import ray

    # "local": a plain init() would join a cluster that something else left running.
    ray.init("local", num_cpus=2, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
