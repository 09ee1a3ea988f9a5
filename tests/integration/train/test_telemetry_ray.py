"""Metrics reach Ray's own Prometheus endpoint under the names that the dashboard asks for."""

from __future__ import annotations

import time
import urllib.request
from types import SimpleNamespace

import pytest
import ray

from plinth.observe.telemetry import METRICS, Telemetry, exported_name

pytestmark = pytest.mark.slow
STEP = SimpleNamespace(
    step=6, epoch=1, loss=2.5, terms={"view_image": 1.5}, grad_norm=0.5, lr=1e-4, world_size=2, samples=48,
    step_s=0.5, data_wait_s=0.125, compute_s=0.25, checkpoint_s=1.5, memory_bytes=1 << 30,
)  # fmt: skip
DEADLINE_S = 60.0


def test_telemetry_outside_ray_does_nothing() -> None:
    Telemetry("run", "main", 0).record(STEP)
    assert not ray.is_initialized(), "nothing is started for it"


def test_telemetry_is_exported_to_prometheus() -> None:
    ray.init(
        address="local", num_cpus=1, object_store_memory=80_000_000, include_dashboard=False,
        configure_logging=False,
        _system_config={"metrics_report_interval_ms": 1000},
    )  # fmt: skip
    try:
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        telemetry = Telemetry("poma3d", "main", 0)
        exported: dict[str, str] = {}
        deadline = time.monotonic() + DEADLINE_S
        while len(exported) < len(METRICS) and time.monotonic() < deadline:
            telemetry.record(STEP)
            time.sleep(2)
            text = urllib.request.urlopen(url, timeout=10).read().decode()
            lines = [line for line in text.splitlines() if 'run="poma3d"' in line]
            exported = {line.split("{")[0]: line for line in lines}
    finally:
        ray.shutdown()
    assert {exported_name(name) for name in METRICS} <= set(exported)
    loss = exported["ray_plinth_loss"]
    assert float(loss.split()[-1]) == 2.5
    assert 'stage="main"' in loss
    assert 'rank="0"' in exported["ray_plinth_memory_bytes"]
    assert float(exported["ray_plinth_samples_total"].split()[-1]) % 48 == 0
