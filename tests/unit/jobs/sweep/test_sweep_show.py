"""`poma sweep show`: the table, following a sweep, folders that are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.sweep import show as sweep_show
from jobs.sweep.show import describe, show
from jobs.sweep.state import read_state
from plinth.errors import StorageError
from plinth.storage import Storage, StorageOptions
from plinth.sweep.records import (
    Report,
    Status,
    TrialHistory,
    TrialRecord,
    read_sweep,
    write_history,
    write_sweep,
)
from tests.helpers.sweep_folder import LR, MODE, RANK, sweep, trial

OPTIONS = StorageOptions()


def three(folder: Path, gpus: int = 0) -> Storage:
    """One that finished, one that failed, one that runs and has said nothing."""
    storage = sweep(folder, 8)

    def report(samples: int, view: float) -> Report:
        return Report("main", samples // 32, samples, 90.0, {"view": view})

    finished = TrialRecord(0, {LR: 1e-3, MODE: "lora", RANK: 4}, Status.finished)
    trial(storage, finished, [report(3200, 2.0), report(6400, 2.25)], gpus)
    failed = TrialRecord(1, {LR: 2.5e-4, MODE: "full"}, Status.failed, "no room\npassword=hunter2secret")
    trial(storage, failed, [report(3200, 3.0)])
    trial(storage, TrialRecord(2, {LR: 1e-2, MODE: "full"}, Status.running), [])
    return storage


def test_show_prints_the_table(tmp_path: Path) -> None:
    storage = three(tmp_path)
    assert describe(read_state(storage)) == [
        f"{storage.uri}: running",
        "  judged by  lowest view; searcher random, scheduler asha",
        "  trials     3 of 8: 1 running, 1 finished, 1 failed",
        "  spent      65 min of 2 h wall time in 2 starts; 0.056 worker-hours; 300 steps",
        "  best       trial 000, view 2.0000; lr 0.001, mode lora, rank 4",
        "",
        "   trial  lr       jepa  mode  rank  samples       last    best    status    worker-hours",
        "*  000    0.001    -     lora  4     6400 of 6400  2.2500  2.0000  finished  0.028",
        "   001    0.00025  -     full  -     3200 of 6400  3.0000  3.0000  failed    0.028",
        "   002    0.01     -     full  -     0 of 6400     -       -       running   0.000",
        "",
        "trial 001 failed: no room",
    ]


def test_show_prints_cost_where_there_is_a_price(tmp_path: Path) -> None:
    text = "\n".join(describe(read_state(three(tmp_path, gpus=2))))
    assert "0.056 GPU-hours for 0.14" in text
    assert "status    GPU-hours  cost\n" in text
    assert "finished  0.056      0.14" in text


def test_show_ranks_by_mode_max(tmp_path: Path) -> None:
    storage = three(tmp_path)
    record = read_sweep(storage)
    assert record is not None
    record.mode = "max"
    write_sweep(storage, record)
    text = describe(read_state(storage))
    assert "  judged by  highest view; searcher random, scheduler asha" in text
    assert "  best       trial 001, view 3.0000; lr 0.00025, mode full" in text


def test_show_before_the_first_trial(tmp_path: Path) -> None:
    text = describe(read_state(sweep(tmp_path, 8, starts=1)))
    assert "  trials     0 of 8" in text
    assert "  best       none yet: no trial has reported a number" in text
    assert text[-1].split() == [
        "trial", "lr", "jepa", "mode", "rank", "samples", "last", "best", "status", "worker-hours",
    ]  # fmt: skip


def test_show_names_the_donors_of_a_clone(tmp_path: Path) -> None:
    storage = three(tmp_path)
    said = TrialHistory({LR: 1e-3, MODE: "full"}, donors=["000 at 100", "000 at 200"])
    write_history(storage.child("trials/002"), said)
    assert describe(read_state(storage))[-1] == "trial 002 cloned 000 at 100, then 000 at 200"


def test_show_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = three(tmp_path)
    assert show(storage.uri, OPTIONS) == 0
    assert "page:" not in capsys.readouterr().out
    storage.write("index.html", b"")
    assert show(storage.uri, OPTIONS) == 0
    assert capsys.readouterr().out.endswith(f"\npage: {storage.uri}/index.html\n")


def test_follow_prints_changes_until_the_sweep_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = three(tmp_path)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        record = read_sweep(storage)
        assert record is not None
        if len(slept) == 3:
            record.status = "finished"
        write_sweep(storage, record)

    monkeypatch.setattr(sweep_show, "time", SimpleNamespace(sleep=sleep))
    assert show(storage.uri, OPTIONS, follow=True) == 0
    assert slept == [sweep_show.REFRESH_S] * 3
    text = capsys.readouterr().out
    assert text.count("judged by") == 2, "nothing is said again that has not changed"
    assert f"{storage.uri}: finished" in text
    assert "\x1b" not in text, "no terminal, no control characters"


def test_follow_ends_on_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_show, "time", SimpleNamespace(sleep=interrupt))
    assert show(three(tmp_path).uri, OPTIONS, follow=True) == 0


def test_show_refuses_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a sweep"):
        show(str(tmp_path), OPTIONS)
    with pytest.raises(StorageError, match="is not a folder"):
        show(str(tmp_path / "nowhere"), OPTIONS)
