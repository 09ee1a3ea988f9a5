"""Runs from their folders: status in every situation, progress, ledger, incidents, first causes, logs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.cli import main
from jobs.runs import command as runs
from jobs.runs.page import write_page
from jobs.runs.state import read_run
from plinth.errors import StorageError
from plinth.observe.ledger import FAILED, FINISHED, RUNNING, STOPPED
from plinth.storage import StorageOptions
from tests.helpers import run_folder
from tests.helpers.run_folder import NOW, killed_run

OPTIONS = StorageOptions()


@pytest.fixture(autouse=True)
def _at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "time", SimpleNamespace(time=lambda: NOW))


def test_a_run_that_was_killed_once_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = killed_run(tmp_path)
    assert runs.show(storage.uri, OPTIONS) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{storage.uri}: running, held by ann on node-1, process 11",
        "",
        "warmup   step 40 of 40, loss 2.8176, 2027-01-15 07:13:00 UTC",
        "         checkpoints 20, 40",
        "main     step 70 of 120, loss 2.3008, 2027-01-15 07:23:00 UTC",
        "         checkpoints 20, 40, 60",
        "",
        "ledger: 60 min wall time, 1 restart, 10 steps redone",
        "  category          time    share  gpu-hours  cost",
        "  productive        43 min  72.2%  1.14       2.85",
        "  data stall        3 min   5.3%   0.09       0.24",
        "  checkpoint stall  31 s    0.9%   0.01       0.04",
        "  start up          85 s    2.4%   0.04       0.10",
        "  lost              3 min   5.7%   0.11       0.27",
        "  idle              8 min   13.6%  0.15       0.37",
        "",
        "incidents",
        "  main step 51, 2027-01-15 07:45:00 UTC: The loss is not finite; rolled back; "
        "room-0, room-1, room-2, room-3 and 2 more",
        "",
        "failures, each with its first cause",
        "  rank 1 on node-2 vanished in step 48, last sign of life 2027-01-15 07:33:20 UTC: "
        "killed, out of memory, or its host or the driver is lost",
        "    samples in the step: room-8, room-<9>",
        f"    1 other rank followed: 0 (RuntimeError: {run_folder.GLOO})",
    ]


@pytest.mark.parametrize(
    ("step", "silent_s", "outcome", "locked", "status", "detail"),
    [
        (70, 3, RUNNING, True, "running", "held by ann on node-1, process 11"),
        (70, 100, RUNNING, True, "silent", "no sign of life for 2 min, restarting or lost"),
        (70, 100, FAILED, True, "silent", "restarting or lost"),
        (70, 3, RUNNING, False, "running", ""),
        (70, 100, RUNNING, False, "failed", "no sign of life for 2 min"),
        (70, 7200, RUNNING, True, "failed", "2 h 0 min; its lock was left behind (held by ann"),
        (70, 7200, FAILED, False, "failed", ""),
        (70, 7200, STOPPED, False, "stopped", ""),
        (70, 7200, FINISHED, False, "stopped", ""),
        (120, 7200, FINISHED, False, "finished", ""),
        (120, 7200, RUNNING, False, "finished", ""),
    ],
)  # fmt: skip
def test_the_status(
    tmp_path: Path, step: int, silent_s: float, outcome: str, locked: bool, status: str, detail: str
) -> None:
    storage = killed_run(tmp_path, step, outcome=outcome)
    storage.delete("LOCK.json")
    if locked:
        storage.write("LOCK.json", json.dumps(run_folder.LOCK).encode())
    state = read_run(storage, NOW - 3 + silent_s)
    assert state.status == status
    assert detail in state.detail
    assert bool(state.detail) == bool(detail)


def test_a_run_before_its_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = killed_run(tmp_path)
    for key, _ in storage.list():
        if key not in ("config.yaml", "LOCK.json"):
            storage.delete(key)
    state = read_run(storage, NOW)
    assert (state.status, state.where, state.stage, state.ledger.wall_s) == ("running", "", None, 0)
    assert runs.list_runs(str(tmp_path), OPTIONS) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "rooms",
        "running",
        "-",
        "-",
        "0",
        "s",
        "0%",
        "0",
    ]


def test_a_run_from_before_the_ledger(tmp_path: Path) -> None:
    storage = killed_run(tmp_path, outcome=STOPPED)
    for key, _ in storage.list("ledger"):
        storage.delete(key)
    state = read_run(storage, NOW)
    assert (state.status, state.where) == ("stopped", "main, step 70 of 120")


def test_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_run(tmp_path)
    killed_run(tmp_path / "rooms" / "ray", 120, outcome=FINISHED)  # not a run of this output
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{}")
    assert runs.list_runs(str(tmp_path), OPTIONS) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "status", "where", "loss", "wall", "time", "productive", "restarts"]
    assert line.split("  ")[0] == "rooms"
    assert "running  main, step 70 of 120  2.3008  60 min     72%         1" in line


DAMAGE = {
    "LOCK.json": b"",
    "main/incidents/step-00000051-1.json": b'{"kind": 7, "step": 51}',
    "main/incidents/step-00000051-0.json": b'{"kind": "The loss',
    "config.yaml": b"name: [",
}


@pytest.mark.parametrize("key", DAMAGE)
def test_a_damaged_run_is_named_beside_the_others(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_run(tmp_path / "a").write(key, DAMAGE[key])
    killed_run(tmp_path / "b", step=120, outcome=FINISHED)
    (tmp_path / "a" / "rooms").rename(tmp_path / "damaged")
    (tmp_path / "b" / "rooms").rename(tmp_path / "whole")
    assert runs.list_runs(str(tmp_path), OPTIONS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["damaged", "damaged"], ["whole", "finished"]]
    assert lines[3].startswith(f"damaged: {tmp_path}/damaged/{key} is damaged (")
    assert main(["runs", "show", str(tmp_path / "damaged")]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert f"{key} is damaged" in line


NOT_WHAT_WAS_WRITTEN = [b"", b'{"attempt": "a1', b"[]", b"null", b"[" * 100_000, b"[{}]", b'{"step": "x"}']


@pytest.mark.parametrize("content", NOT_WHAT_WAS_WRITTEN)
def test_damaged_records_of_what_happened_cost_themselves_only(content: bytes, tmp_path: Path) -> None:
    """Ledger, failures, starts, evaluations, metrics, versions of data: none of them stops the page."""
    storage = killed_run(tmp_path, step=120, outcome=FINISHED)
    before = read_run(storage, NOW)
    storage.write("ledger/a0-main.json", content)
    storage.write("logs/a0-rank0.failure.json", content)
    storage.write("logs/20260101-000000.lost.json", content)
    storage.write("starts.json", content)
    storage.write("data.json", content)
    storage.write("evaluations/torn.json", content)
    storage.write("main/metrics.jsonl", storage.read("main/metrics.jsonl") + content)
    state = read_run(storage, NOW)
    assert (state.status, state.where) == (before.status, before.where)
    assert state.ledger == before.ledger
    write_page(storage, NOW)
    assert "main, step 120 of 120" in storage.read("index.html").decode()


def test_torn_metrics_cost_their_lines(tmp_path: Path) -> None:
    storage = killed_run(tmp_path)
    lines = storage.read("main/metrics.jsonl")
    storage.write(
        "main/metrics.jsonl", lines[: len(lines) // 2] + b"\n\xff{\n" + lines[len(lines) // 2 : -20]
    )
    state = read_run(storage, NOW)
    assert (state.status, state.where) == (RUNNING, "main, step 70 of 120")


def test_logs_begin_with_the_oldest_and_end_with_the_first_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = killed_run(tmp_path)
    assert runs.logs(storage.uri, OPTIONS, lines=1) == 0
    assert capsys.readouterr().out.splitlines()[:5] == [
        "== a1, rank 0", "main 48/120", "== a1, rank 1", "main 48/120", "== first cause in a1",
    ]  # fmt: skip
    assert runs.logs(storage.uri, OPTIONS, rank=1) == 0
    text = capsys.readouterr().out
    assert "plinth: rank 1\nmain 1/120\nmain 48/120\n" in text
    assert "== a1, rank 0" not in text


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a run"):
        runs.show(str(tmp_path), OPTIONS)
    with pytest.raises(StorageError, match="holds no runs"):
        runs.list_runs(str(tmp_path), OPTIONS)
    storage = killed_run(tmp_path)
    with pytest.raises(StorageError, match="no logs of rank 7"):
        runs.logs(storage.uri, OPTIONS, rank=7)


@pytest.mark.parametrize(
    ("action", "says"), [("list", "productive"), ("show", "ledger:"), ("logs", "== a1, rank 1")]
)
def test_command_line(tmp_path: Path, action: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    storage = killed_run(tmp_path)
    assert main(["runs", action, str(tmp_path) if action == "list" else storage.uri]) == 0
    assert says in capsys.readouterr().out
