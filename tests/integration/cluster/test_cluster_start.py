"""The start command of clusters/local.yaml, run as it stands but for its ports: no token, no answer."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from jobs.common.cluster import free_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
TOKEN = "only-for-this-test-0123456789abcdef"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
UNAUTHORISED = (401, 403)


@dataclass(frozen=True)
class Head:
    """A running head."""

    dashboard_port: int
    group: int
    """Of its processes."""

    def status(self, path: str, token: str | None = None) -> int:
        """HTTP status of a request to the dashboard."""
        headers = {"x-ray-authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.dashboard_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def listening_addresses(head: Head) -> set[str]:
    """On which the head's processes, and no other Ray of this machine, listen, once the dashboard does."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == head.group:
                sockets = process.net_connections("tcp")
                found |= {(s.laddr.ip.removeprefix("::ffff:"), s.laddr.port) for s in sockets if not s.raddr}
    return {ip for ip, _ in found} if any(port == head.dashboard_port for _, port in found) else set()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """The head of local.yaml in a process group of its own, with a token of its own."""
    folder = tmp_path_factory.mktemp("head")
    (folder / "token").write_text(TOKEN)
    commands = yaml.safe_load((ROOT / "clusters/local.yaml").read_text())["head_start_ray_commands"]
    (command,) = (c for c in commands if "ray start" in c)
    port, dashboard, metrics = free_port(), free_port(), free_port()
    command = command.replace("--port=6379", f"--port={port}").replace("=8080", f"={metrics}")
    command = re.sub(r"--autoscaling-config=\S+", f"--dashboard-port={dashboard} --block", command)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }
    command += " --num-cpus=1 --object-store-memory=80000000"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    started = Head(dashboard, process.pid)
    try:
        _wait(started, process, folder / "log")
        yield started
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            head.status("/api/version")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    raise AssertionError(f"no dashboard after {START_TIMEOUT_S} s: {log.read_text()[-2000:]}")


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/version", "/nodes?view=summary"])
def test_dashboard_refuses_requests_without_the_token(head: Head, path: str) -> None:
    assert head.status(path) in UNAUTHORISED
    assert head.status(path, "another-token") in UNAUTHORISED


def test_dashboard_lists_jobs_with_the_token(head: Head) -> None:
    assert head.status("/api/jobs/", TOKEN) == 200


def test_all_of_it_listens_on_loopback_only(head: Head) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (addresses := listening_addresses(head)):  # the kernel's table may miss a row while it changes
        assert time.monotonic() < deadline
    assert addresses == {"127.0.0.1"}


def test_ray_job_client_is_refused_without_the_token(head: Head, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    command = [str(Path(sys.executable).parent / "ray"), "job", "list", "--address"]
    url = f"http://127.0.0.1:{head.dashboard_port}"
    done = subprocess.run(
        [*command, url], env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
