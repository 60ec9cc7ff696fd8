"""A run's metrics among Ray's own, where its dashboard and Prometheus read them."""

import time
import urllib.request

import pytest

from raymdm.training.metrics import Dashboard

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_what_a_run_measures_is_exported_by_its_node(ray_cluster: None) -> None:
    import ray

    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    dashboard = Dashboard("one")
    deadline = time.monotonic() + 60
    lines: list[str] = []
    while not lines:
        assert time.monotonic() < deadline, "the gauge never came"
        dashboard.show({"loss": 1.5})
        time.sleep(1)
        with urllib.request.urlopen(address, timeout=10) as page:
            text = page.read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_raymdm_loss{")]
    assert 'run="one"' in lines[0]
    assert lines[0].endswith(" 1.5")
