"""A real S3-compatible server on this machine, for tests of stores."""

from collections.abc import Iterator

import pytest

from raymdm.training.checkpoint_store import CheckpointStore


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URI of folders in a bucket of a server of its own; `{}` stands for the folder."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        store = CheckpointStore(f"s3://runs/any?{options}&allow_bucket_creation=true")
        store.filesystem.create_dir("runs")
        yield f"s3://runs/{{}}?{options}"
    server.stop()
