"""Joining a Ray cluster: one that is not there is one line, at once."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from jobs.common import cluster
from jobs.common.cluster import free_port, ray_cluster
from jobs.common.ray_config import RayConfig
from plinth.errors import ConfigError


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    address = f"{scheme}127.0.0.1:{free_port()}"
    with (
        pytest.raises(ConfigError, match=f"^ray.address {address}: no Ray cluster"),
        ray_cluster(RayConfig(address=address), 1),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(ConfigError, match=f"^RAY_ADDRESS {address}: .*unset RAY_ADDRESS"),
        ray_cluster(RayConfig(), 1),
    ):
        pass


@pytest.mark.parametrize(("listens_on", "is_switched"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_cluster_on_loopback_alone_is_asked_there(
    listens_on: str, is_switched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes the machine's address, here 127.0.0.2, in place of loopback."""
    switched: list[bool] = []
    monkeypatch.setattr(cluster, "stay_on_loopback", lambda: switched.append(True))
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.2")
    with socket.create_server((listens_on, 0)) as server:
        for host in ("127.0.0.1", "localhost", "127.0.0.2"):
            cluster._check_answers(f"{host}:{server.getsockname()[1]}")
    assert switched == [True] * 3 * is_switched


def test_the_settings_of_processes_beside_are_still_rays() -> None:
    """They are read where these modules are imported, in processes that Ray starts."""
    readers = ("dashboard.modules.reporter.reporter_consts", "_private.log_monitor", "_private.ray_constants")
    read = "".join(inspect.getsource(import_module(f"ray.{name}")) for name in readers)
    for name in cluster.OF_LOGS | cluster.WITHOUT_DASHBOARD:
        assert f'"{name}"' in read, name


def test_only_what_is_started_meanwhile_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_USER", "theirs")
    monkeypatch.delenv("OF_OURS", raising=False)
    with cluster._inherited({"OF_THE_USER": "ours", "OF_OURS": "ours"}):
        assert (os.environ["OF_THE_USER"], os.environ["OF_OURS"]) == ("theirs", "ours")
    assert os.environ["OF_THE_USER"] == "theirs"
    assert "OF_OURS" not in os.environ


@pytest.mark.slow
def test_a_cluster_starts_without_a_home_that_can_be_written(tmp_path: Path) -> None:
    """A container's uid without a name has HOME=/; root may write everywhere, a file is no folder for all.
    In a process of its own: Ray reads the token once in a process."""
    (tmp_path / "home").touch()
    code = (
        "import posixpath\n"
        "from jobs.common.cluster import map_tasks, ray_cluster\n"
        "from jobs.common.ray_config import RayConfig\n"
        "with ray_cluster(RayConfig(num_cpus=1, object_store_bytes=100 << 20), 1):\n"
        "    assert map_tasks(posixpath.basename, ['a/b'], 1, {'CPU': 1.0}, 'a task', 'tasks') == ['b']\n"
    )
    unset = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_host_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"nowhere\.invalid:6379: no Ray cluster"),
        ray_cluster(RayConfig(address="nowhere.invalid:6379"), 1),
    ):
        pass


def test_sigterm_ends_a_command_in_a_line_and_its_handler_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = []

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: ended.append("Ray's handler"))

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: ended.append("shutdown"))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as exit_, ray_cluster(RayConfig(), 1):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (exit_.value.code, ended) == (143, ["shutdown"])
    assert capsys.readouterr().err == "ended by SIGTERM\n"


def test_a_service_of_ray_that_ends_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(cluster, "ended_services", lambda: list(ended))
    told: set[str] = set()
    for name in ("", "log_monitor", "raylet", ""):
        ended += [name] if name else []
        cluster._tell_of_ended(told)
    said = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "ERROR"]
    assert "log_monitor on this machine has ended: the command goes on" in said[0][1]
    assert "raylet on this machine has ended" in said[1][1]
