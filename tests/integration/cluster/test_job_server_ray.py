"""A real job server behind a token: exit codes, logs, numbers, a line that is cut, a cluster that is gone."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest
from ray.job_submission import JobSubmissionClient

from jobs.cli import main
from jobs.submit import job_server
from jobs.submit.job_server import JobServer, find
from plinth.errors import ConfigError, WorkersLostError
from tests.helpers import raylets
from tests.helpers.raylets import Raylets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TIMEOUT_S = 300.0
LINES = [f"line {i}" for i in range(60)]
SLOW_LINES = "for i in $(seq 0 59); do echo line $i; sleep 0.1; done"
RAYS_OWN = re.compile("Runtime env is setting up|Running entrypoint for job")
"""Lines that Ray writes into a job's log, at any place."""
JOBS = {
    "done": "seq 100 199; echo password=hunter22",
    "two": "exit 2",
    "stopped": "exit 143",
    "missing": "no-such-command-anywhere",
}


class Forwarder:
    """A forwarded port on loopback that can be cut, as an SSH tunnel to a cluster's head is."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.is_open = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Forwarder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            self._sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylets]:
    with raylets.running(0, tmp_path_factory.mktemp("head"), {}) as started:
        yield started


@pytest.fixture(autouse=True)
def _client_of_the_cluster(cluster: Raylets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "RETRY_S", 0.2)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, cluster.environment[name])


@pytest.fixture
def server(cluster: Raylets) -> JobServer:
    return JobServer(find(None, cluster.dashboard))


def stop(cluster: Raylets, submission_id: str) -> None:
    token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}"}
    JobSubmissionClient(cluster.dashboard, headers=headers).stop_job(submission_id)


def printed() -> contextlib.redirect_stdout[io.StringIO]:
    """What is printed inside, readable while another thread prints: pytest's own capture loses text then."""
    return contextlib.redirect_stdout(io.StringIO())


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """SIGINT as a terminal sends it, also where these tests run in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_exit_codes_and_logs_are_those_of_the_jobs(
    cluster: Raylets, server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = {name: server.submit(name, entrypoint=command) for name, command in JOBS.items()}
    ids["long"] = server.submit("long", entrypoint="sleep 600")
    until(lambda: [job.status.value for job in server.alive("long")] == ["RUNNING"])
    stop(cluster, ids["long"])
    codes = {name: server.follow(submission_id, is_new=True) for name, submission_id in ids.items()}
    assert codes == {"done": 0, "two": 2, "stopped": 143, "missing": 127, "long": 143}
    out = capsys.readouterr().out
    assert "199\n" in out
    assert "hunter22" not in out
    for ending in ("done-1: done", "two-1: failed with exit code 2", "stopped-1: stopped", "long-1: stopped"):
        assert [line for line in out.splitlines() if line.startswith(ending)], ending
    assert "the head has no `poma` on its PATH" in out
    assert server.follow(ids["done"], is_new=False) == 0
    tail = capsys.readouterr().out.splitlines()
    assert "password=***" in tail
    assert tail[-1] == "done-1: done"
    assert len(tail) == job_server.TAIL_LINES + 1


def test_submissions_of_a_name_are_numbered(cluster: Raylets, server: JobServer) -> None:
    ids = [server.submit("again", entrypoint="sleep 600") for _ in range(2)]
    other = server.submit("again-x", entrypoint="sleep 600")
    assert [*ids, other] == ["again-1", "again-2", "again-x-1"]
    assert sorted(job.submission_id for job in server.alive("again")) == ids
    server.check_known(other)
    with pytest.raises(ConfigError, match=r"has no job x-1\. Its last ones: .*again-x-1\.$"):
        server.check_known("x-1")
    for submission_id in (*ids, other):
        stop(cluster, submission_id)
    until(lambda: not server.alive("again"))


def test_cut_line_is_resumed_where_it_broke(cluster: Raylets) -> None:
    with printed() as text, Forwarder(int(cluster.dashboard.rpartition(":")[2])) as line:
        server = JobServer(find(None, line.url))
        submission_id = server.submit("slow", entrypoint=SLOW_LINES)
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(server.follow(submission_id, is_new=True)))
        thread.start()
        for last in (LINES[10], LINES[30]):
            while f"{last}\n" not in text.getvalue():
                assert thread.is_alive()
                time.sleep(0.05)
            line.is_open = False
            line.cut()
            time.sleep(1.0)  # the next tries are refused
            line.is_open = True
        thread.join(TIMEOUT_S)
    assert codes == [0]
    lines = [line for line in text.getvalue().splitlines() if not RAYS_OWN.search(line)]
    assert lines == [*LINES, f"{submission_id}: done"]


def test_cluster_that_stays_away_is_given_up(cluster: Raylets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "AWAY_LIMIT_S", 1.0)
    with Forwarder(int(cluster.dashboard.rpartition(":")[2])) as line:
        server = JobServer(find(None, line.url))
        submission_id = server.submit("away", entrypoint="sleep 600")
        line.is_open = False
        line.cut()
        with pytest.raises(
            WorkersLostError, match=f"poma submit --attach {submission_id} --address {line.url}"
        ):
            server.follow(submission_id, is_new=True)
    stop(cluster, submission_id)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_leaves_the_job_running(cluster: Raylets, server: JobServer) -> None:
    submission_id = server.submit("kept", entrypoint="echo begun; sleep 600")

    def interrupt() -> None:
        until(lambda: "begun" in text.getvalue())
        os.kill(os.getpid(), signal.SIGINT)

    with printed() as text:
        threading.Thread(target=interrupt, daemon=True).start()
        assert main(["submit", "--attach", submission_id, "--address", cluster.dashboard]) == 130
    comeback = f"come back: poma submit --attach {submission_id} --address {cluster.dashboard}"
    assert comeback in text.getvalue()
    assert server.alive("kept")
    stop(cluster, submission_id)


def test_tokens_are_asked_for(cluster: Raylets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-0123456789abcdef0123456789abcdef")
    with pytest.raises(ConfigError, match="refuses the token that it was shown"):
        JobServer(find(None, cluster.dashboard))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="wants a token, and there is none here"):
        JobServer(find(None, cluster.dashboard))
