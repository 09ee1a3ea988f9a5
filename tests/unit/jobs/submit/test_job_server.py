"""The job server: where it is, its token, numbers of submissions, how a job ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.submit import job_server
from jobs.submit.job_server import ending, find, next_id, numbered, send_when_ready, token_header
from plinth.errors import ConfigError, StorageError

CLUSTERS = Path(__file__).parents[4] / "clusters"


@pytest.mark.parametrize(
    ("status", "code", "message", "expected", "text"),
    [
        ("SUCCEEDED", 0, "", 0, "done"),
        ("SUCCEEDED", None, "", 0, "done"),
        ("FAILED", 143, "", 143, "stopped"),
        ("STOPPED", None, "", 143, "stopped"),
        ("FAILED", 2, "", 2, "failed with exit code 2"),
        ("FAILED", None, "The supervisor died.\nMore", 1, "failed with exit code 1: The supervisor died."),
        ("FAILED", None, "password=hunter22", 1, "failed with exit code 1: password=***"),
    ],
)
def test_exit_code_is_the_drivers(
    status: str, code: int | None, message: str, expected: int, text: str
) -> None:
    assert ending(status, code, message) == (expected, text)


def test_missing_command_says_what_to_install() -> None:
    assert "no `poma` on its PATH" in ending("FAILED", 127, "")[1]


def test_every_submission_has_the_next_number() -> None:
    assert next_id("poma-run-1a", []) == "poma-run-1a-1"
    mine = {"poma-run-1a-9": 9, "poma-run-1a-10": 10}
    ids = [*mine, "poma-run-1ab-11", "poma-run-1a-x-12", "poma-run-1a-mine"]
    assert numbered("poma-run-1a", ids) == mine
    assert next_id("poma-run-1a", ids) == "poma-run-1a-11"


def test_starting_head_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    target, not_ready, taken = find(None, "here:1"), "No available agent to submit job", "x already exists"
    monkeypatch.setattr(job_server, "RETRY_S", 0.0)

    def send() -> None:
        if answers:
            raise RuntimeError(f"Request failed with status code 500: {answers.pop(0)}.")

    answers = [not_ready, not_ready]
    send_when_ready(send, target)
    assert not answers
    answers = [not_ready, taken]
    send_when_ready(send, target)
    assert not answers, "the answer was lost, the job was not"
    answers = [taken]
    with pytest.raises(RuntimeError, match="x already exists"):
        send_when_ready(send, target)
    monkeypatch.setattr(job_server, "START_LIMIT_S", 0.0)
    answers = [not_ready]
    with pytest.raises(ConfigError, match="--dashboard-agent-listen-port"):
        send_when_ready(send, target)


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
    assert token_header() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert token_header() == {"Authorization": "Bearer home"}
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="No such file"):
        token_header()
    (tmp_path / "file").write_text("named")
    assert token_header() == {"Authorization": "Bearer named"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert token_header() == {"Authorization": "Bearer given"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_header() == {}
