import pytest
import ray

from raymdm.cluster import start_ray
from raymdm.errors import ClusterError


def test_nobody_listens() -> None:
    if ray.is_initialized():
        pytest.skip("Ray runs in this process and would be used")
    with pytest.raises(ClusterError, match=r"cluster\.address: Ray at '127\.0\.0\.1:1'"):
        start_ray("127.0.0.1:1").__enter__()


@pytest.mark.ray
def test_running_ray_is_used_and_left(ray_cluster: None) -> None:
    with start_ray("127.0.0.1:1"):
        assert ray.is_initialized()
    assert ray.is_initialized()
