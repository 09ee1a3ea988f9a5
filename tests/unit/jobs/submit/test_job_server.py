"""The job server: where it is, its token, numbers of submissions, following one over a line that breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from jobs.submit import command as submit
from jobs.submit import job_server
from jobs.submit.job_server import JobServer, _token_header, find
from plinth.errors import ConfigError, StorageError, WorkersLostError

CLUSTERS = Path(__file__).parents[4] / "clusters"
LOG = "one\ntwo\nthree\nfour\n"


class FakeClient:
    """Ray's client, told what happens: each of `cuts` is how far one connection gets, None to the end."""

    def __init__(self, cuts: Sequence[int | None], status: str, code: int | None, message: str = "") -> None:
        self.cuts = list(cuts)
        self.info = SimpleNamespace(status=JobStatus(status), driver_exit_code=code, message=message)
        self.jobs: list[Any] = []
        self.log = LOG

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        cut = self.cuts.pop(0) if len(self.cuts) > 1 else self.cuts[0]
        for line in self.log[:cut].splitlines(keepends=True):
            yield line
        if cut is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_logs(self, submission_id: str) -> str:
        return self.log[:8]

    def get_job_info(self, submission_id: str) -> Any:
        return self.info

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **what: Any) -> str:
        return str(what["submission_id"])


def server(client: FakeClient) -> JobServer:
    made = JobServer.__new__(JobServer)
    made.target = find(None, "http://here:1")
    made._client, made._has_token = client, True  # type: ignore[assignment]
    return made


def job(submission_id: str | None, status: str) -> Any:
    return SimpleNamespace(submission_id=submission_id, status=JobStatus(status), start_time=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "RETRY_S", 0.0)


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "said"),
    [
        ("SUCCEEDED", 0, "", 0, "x-1: done"),
        ("FAILED", 143, "", 143, "x-1: stopped"),
        ("FAILED", 2, "", 2, "x-1: failed with exit code 2"),
        ("FAILED", 127, "", 127, "no `poma` on its PATH"),
        ("FAILED", None, "The supervisor died.\nMore", 1, "failed with exit code 1: The supervisor died."),
        ("STOPPED", None, "", 143, "x-1: stopped"),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_runs(
    status: str, code: int | None, message: str, expected: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server(FakeClient([None], status, code, message)).follow("x-1", is_new=True) == expected
    printed = capsys.readouterr().out
    assert printed.startswith(LOG)
    assert said in printed


def test_a_line_that_breaks_is_taken_up_where_it_broke(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient([5, 3, 11, None], "SUCCEEDED", 0)
    assert server(client).follow("x-1", is_new=True) == 0
    assert capsys.readouterr().out == LOG + "x-1: done\n"


def test_who_comes_back_sees_the_last_lines_and_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert server(FakeClient([None], "SUCCEEDED", 0)).follow("x-1", is_new=False) == 0
    assert capsys.readouterr().out == LOG + "x-1: done\n"


def test_nobody_waits_for_ever_for_a_cluster_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "AWAY_LIMIT_S", 0.05)
    with pytest.raises(WorkersLostError, match="poma submit --attach x-1 --address http://here:1"):
        server(FakeClient([5], "RUNNING", None)).follow("x-1", is_new=True)


def test_a_head_that_is_away_for_a_moment_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = FakeClient([None], "SUCCEEDED", 0)
    away = [ConnectionError(), ConnectionError()]

    def info(submission_id: str) -> Any:
        if away:
            raise away.pop()
        return client.info

    monkeypatch.setattr(client, "get_job_info", info)
    assert server(client).follow("x-1", is_new=True) == 0
    assert capsys.readouterr().out == LOG + "x-1: done\n"


def test_what_a_job_prints_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient([None], "FAILED", None, "password=hunter22")
    client.log = "password=hunter22 and\nmore\n"
    assert server(client).follow("x-1", is_new=True) == 1
    assert "hunter22" not in capsys.readouterr().out


def test_ctrl_c_leaves_the_job_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    made = server(FakeClient([None], "RUNNING", None))
    monkeypatch.setattr(made, "follow", interrupted)
    assert submit._follow(made, "x-1", made.target, is_new=True) == 130
    assert "come back: poma submit --attach x-1 --address http://here:1" in capsys.readouterr().out


def test_every_submission_has_the_next_number() -> None:
    client = FakeClient([None], "SUCCEEDED", 0)
    assert server(client).submit("poma-run-1a", entrypoint="e") == "poma-run-1a-1"
    client.jobs = [job(None, "RUNNING"), job("poma-run-1a-10", "FAILED"), job("poma-run-1a-9", "FAILED")]
    client.jobs += [job(f"poma-run-{other}", "RUNNING") for other in ("1ab-11", "1a-x-12", "1a-mine")]
    made = server(client)
    assert made.submit("poma-run-1a", entrypoint="e") == "poma-run-1a-11"
    assert [found.submission_id for found in made.submissions("poma-run-1a")] == [
        "poma-run-1a-9",
        "poma-run-1a-10",
    ]


def test_a_head_that_is_still_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([None], "RUNNING", None)
    answers = ["No available agent to submit job", "No available agent to submit job", "x already exists"]

    def refusing(**what: Any) -> str:
        raise RuntimeError(f"Request failed with status code 500: {answers.pop(0)}.")

    monkeypatch.setattr(client, "submit_job", refusing)
    assert server(client).submit("poma-run-1a", entrypoint="e") == "poma-run-1a-1", "an answer was lost"
    answers[:] = ["x already exists"]
    with pytest.raises(ConfigError, match=r"status code 500: x already exists\.$"):
        server(client).submit("poma-run-1a", entrypoint="e")
    monkeypatch.setattr(job_server, "START_LIMIT_S", 0.0)
    answers[:] = ["No available agent to submit job"]
    with pytest.raises(ConfigError, match="--dashboard-agent-listen-port"):
        server(client).submit("poma-run-1a", entrypoint="e")


def test_who_comes_back_to_nothing_is_told_what_there_is() -> None:
    client = FakeClient([None], "RUNNING", None)
    client.jobs = [job("poma-run-1a-1", "RUNNING"), job(None, "RUNNING")]
    server(client).check_known("poma-run-1a-1")
    with pytest.raises(ConfigError, match=r"has no job x-1\. Its last ones: poma-run-1a-1\."):
        server(client).check_known("x-1")


def test_where_the_job_server_of_a_file_is() -> None:
    local, cloud = find(CLUSTERS / "local.yaml", None), find(CLUSTERS / "aws-h100.yaml", None)
    assert local.address == cloud.address == "http://127.0.0.1:8265"
    assert "Start it" in local.fix
    assert f"ray dashboard {CLUSTERS / 'aws-h100.yaml'}" in cloud.fix
    assert find(None, "head:8265/").address == "http://head:8265"
    with pytest.raises(ConfigError, match="not a cluster file"):
        find(CLUSTERS / "prices.yaml", None)


def test_the_token_is_found_where_ray_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _token_header() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert _token_header() == {"Authorization": "Bearer home"}
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="No such file"):
        _token_header()
    (tmp_path / "file").write_text("named")
    assert _token_header() == {"Authorization": "Bearer named"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert _token_header() == {"Authorization": "Bearer given"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert _token_header() == {}
