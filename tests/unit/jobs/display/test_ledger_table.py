"""The ledger for people: lines of a terminal, a section of a page, and nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace

from jobs.display.ledger import ledger_lines
from jobs.display.text import aligned
from plinth.observe.ledger import LedgerSummary, Mark, Record, add_up


def book(gpus: int, price: float | None) -> LedgerSummary:
    return add_up(
        [Record("a", "main", 4, gpus, 0, 3600, 10, price, start_up_s=720, marks=[Mark(0), Mark(9, 2880)])]
    )


def test_without_a_ledger_there_is_nothing() -> None:
    assert ledger_lines(LedgerSummary()) == []


def test_gpu_hours_and_cost() -> None:
    assert ledger_lines(book(gpus=8, price=2.0)) == [
        "ledger: 60 min wall time, 0 restarts, 0 steps redone",
        "  category          time    share  gpu-hours  cost",
        "  productive        48 min  80.0%  6.40       12.80",
        "  data stall        0 s     0.0%   0.00       0.00",
        "  checkpoint stall  0 s     0.0%   0.00       0.00",
        "  start up          12 min  20.0%  1.60       3.20",
        "  lost              0 s     0.0%   0.00       0.00",
        "  idle              0 s     0.0%   0.00       0.00",
    ]


def test_time_off_is_said_and_is_no_wall_time() -> None:
    day = 86_400
    first = Record("a", "main", 4, 0, 0, 3600, 10, start_up_s=720, marks=[Mark(0), Mark(9, 2880)])
    second = replace(first, attempt="b", started=day, beat=day + 3600, is_first=True)
    assert ledger_lines(add_up([first, second]))[0] == (
        "ledger: 2 h 0 min wall time, 1 restart, 9 steps redone, 23 h 0 min off"
    )


def test_workers_without_gpus_have_worker_hours() -> None:
    lines = ledger_lines(book(gpus=0, price=None))
    assert lines[1].split() == ["category", "time", "share", "worker-hours"]
    assert lines[2].split() == ["productive", "48", "min", "80.0%", "3.20"]


def test_columns_line_up() -> None:
    assert aligned([["a", "bb"], ["ccc", ""]]) == ["a    bb", "ccc"]
    assert aligned([["a", "step"], ["ccc", "7"]], right=[1]) == ["a    step", "ccc     7"]
