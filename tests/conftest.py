"""One Ray cluster and one S3 server for all tests that need them, and how hypothesis runs."""

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


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URI of folders in a bucket of a server of its own; `{}` stands for the folder."""
    from moto.server import ThreadedMotoServer

    from raymdm.training.checkpoint_store import CheckpointStore

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    # The key is in the URI: workers of a cluster that runs already know no environment of ours.
    store = CheckpointStore(f"s3://key:secret@runs/any?{options}&allow_bucket_creation=true")
    store.filesystem.create_dir("runs")
    yield f"s3://key:secret@runs/{{}}?{options}"
    server.stop()
