"""A cluster that a command starts on this machine is for this machine alone."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
PROGRAM = """
import psutil, ray
from ray._private.worker import get_dashboard_url
from jobs.common.cluster import ray_cluster
from jobs.common.ray_config import RayConfig
with ray_cluster(RayConfig(num_cpus=1, object_store_bytes=100_000_000, dashboard=DASHBOARD), 1):
    url = ray.get(ray.remote(num_cpus=0)(get_dashboard_url).remote())
    print("IN A TASK", bool(url))
    driver = psutil.Process()
    for process in (driver, *driver.children(recursive=True)):
        for socket in process.net_connections("tcp"):
            if socket.status == psutil.CONN_LISTEN:
                print("LISTENS", socket.laddr.ip, process.name())
"""


@pytest.mark.parametrize("dashboard", [False, True])
def test_a_cluster_started_here_listens_on_loopback_alone(dashboard: bool) -> None:
    program = PROGRAM.replace("DASHBOARD", str(dashboard))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ("Ray's dashboard: http://127.0.0.1:" in done.stdout) is dashboard
    assert f"IN A TASK {dashboard}" in done.stdout
    listening = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line[:7] == "LISTENS"]
    assert len(listening) >= 5, "Ray's services were to be seen"
    open_to_others = [
        (address, name)
        for address, name in listening
        if not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
    ]
    assert not open_to_others
