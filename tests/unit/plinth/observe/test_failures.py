"""The first cause: never the collective that timed out when there is another."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path

import pytest

from plinth.errors import StorageError
from plinth.observe.failures import (
    LOST_SUFFIX,
    VANISHED,
    Failure,
    attempts_of,
    by_attempt,
    first_cause,
    is_collective,
    read_failures,
    record_lost,
)
from plinth.storage import Storage

GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:31337"
)
OWN = Failure(
    "a", 2, "node-1", 12, 1000.5, "ValueError", "depth has 3 rows\nexpected 4", "...", 6, ["room-1", "room-9"]
)  # fmt: skip
GONE = Failure("a", 1, "node-2", 34, 990.0, VANISHED, step=6, sample_ids=[f"room-{i}" for i in range(10)])
BROKEN = Failure("a", 0, "node-1", 56, 900.0, "RuntimeError", GLOO, "...", 6, ["room-0"], is_collective=True)


@pytest.mark.parametrize("order", list(permutations([OWN, GONE, BROKEN])))
def test_an_error_of_its_own_comes_first(order: Sequence[Failure]) -> None:
    assert first_cause(order).splitlines() == [
        "rank 2 on node-1 in step 6, 1970-01-01 00:16:40 UTC: ValueError: depth has 3 rows",
        "  samples in the step: room-1, room-9",
        f"  2 other ranks followed: 1 (vanished); 0 (RuntimeError: {GLOO})",
    ]


def test_who_vanished_beats_a_broken_collective() -> None:
    assert first_cause([BROKEN, GONE]).splitlines() == [
        "rank 1 on node-2 vanished in step 6, last sign of life 1970-01-01 00:16:30 UTC: "
        "killed, out of memory, or its host or the driver is lost",
        "  samples in the step: room-0, room-1, room-2, room-3, room-4, room-5, room-6, room-7 and 2 more",
        f"  1 other rank followed: 0 (RuntimeError: {GLOO})",
    ]


def test_first_cause_prefers_rank_lost_by_launcher() -> None:
    ended = replace(GONE, rank=3, time=980.0)  # by the launcher, after rank 1 was lost
    report = first_cause([BROKEN, ended, GONE], {1: "the worker died: SIGKILL"})
    assert report.startswith("rank 1 on node-2 vanished in step 6, last sign of life ")
    assert report.splitlines()[0].endswith("the worker died: SIGKILL")


def test_first_cause_of_rank_without_failure_file() -> None:
    assert first_cause([BROKEN], {4: "node-3 is dead", 0: "RuntimeError"}).splitlines() == [
        "rank 4 vanished: node-3 is dead",
        f"  1 other rank followed: 0 (RuntimeError: {GLOO})",
    ]


def test_first_cause_orders_collectives_by_time_and_rank() -> None:
    later, same = replace(BROKEN, rank=1, time=901.0), replace(BROKEN, rank=2)
    report = first_cause([later, same, BROKEN])
    assert report.startswith("rank 0 on node-1 in step 6")
    assert f"2 other ranks followed: 1, 2 (RuntimeError: {GLOO})" in report


def test_first_cause_names_stage() -> None:
    assert first_cause([replace(OWN, stage="warmup")]).startswith("rank 2 on node-1 in step 6 of warmup, ")


def test_first_cause_shortens_messages_of_followers() -> None:
    report = first_cause([GONE, replace(BROKEN, message="x" * 1000)])
    assert report.splitlines()[-1] == f"  1 other rank followed: 0 (RuntimeError: {'x' * 120} ...)"


def test_first_cause_redacts_launcher_message() -> None:
    report = first_cause([], {2: "GET https://b/k?X-Amz-Signature=pl4nted was refused"})
    assert report == "rank 2 vanished: GET https://b/k?X-Amz-Signature=*** was refused"


def test_nothing_happened() -> None:
    assert first_cause([]) == ""


class DistBackendError(RuntimeError):
    """As torch.distributed names it."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(GLOO), True),
        (RuntimeError(GLOO.replace("closed", "reset")), True),
        (DistBackendError("NCCL communicator was aborted on rank 1."), True),
        (DistBackendError("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7"), True),
        (RuntimeError("wait timeout after 1800000ms, keys: /worker/1"), True),
        (RuntimeError("shapes cannot be multiplied (2x3 and 4x5)"), False),
        (ValueError("Connection reset by peer"), False),
        (StorageError("s3://b/k: still failing after 4 tries: Connection reset by peer."), False),
        (ConnectionResetError(104, "Connection reset by peer"), False),
    ],
)
def test_is_collective_recognises_errors_of_dead_peers(error: Exception, expected: bool) -> None:
    assert is_collective(error) is expected


def test_failures_come_back_by_time_and_attempt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage.from_uri(tmp_path)
    second = replace(OWN, attempt="b", time=2000.0)
    never = replace(GONE, rank=7, time=None)
    for number, failure in enumerate([second, OWN, BROKEN, never]):
        storage.write(f"logs/{number}.failure.json", json.dumps(asdict(failure)).encode())
    storage.write("logs/half.failure.json", b'{"attempt"')
    storage.write("logs/a-rank0.log", b"not a failure")
    with caplog.at_level(logging.WARNING, logger="plinth"):
        found = read_failures(storage)
    assert found == [never, BROKEN, OWN, second]
    assert len(caplog.messages) == 1
    assert "half.failure.json" in caplog.messages[0]
    assert {name: len(failures) for name, failures in by_attempt(found).items()} == {"a": 3, "b": 1}


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_that_vanished_the_launcher_knows_which_was_first(tmp_path: Path, first: int) -> None:
    """Both wrote their last batch within a second; the one that the launcher ended is no cause."""
    storage = Storage.from_uri(tmp_path)
    before, attempt = "20260101-113700-old", "20260101-113740-abc"
    for rank in (0, 1):
        line = {"time": 10.0 + rank, "host": "vm", "pid": 5, "stage": "main", "step": 6, "sample_ids": []}
        for name in (before, attempt):
            storage.write(f"logs/{name}-rank{rank}.batches", json.dumps(line).encode() + b"\n")
    record_lost(storage, {first: ""})
    ((lost, _),) = [entry for entry in storage.list("logs") if entry[0].endswith(LOST_SUFFIX)]
    assert attempts_of(key for key, _ in storage.list("logs")) == [before, attempt]
    expected = f"rank {first} on vm vanished in step 6 of main"
    ((name, found),) = by_attempt(read_failures(storage)).items()
    assert name == attempt, "no word of the attempt before"
    assert first_cause(found).startswith(expected)

    storage.write(f"logs/20260101-113710{LOST_SUFFIX}", json.dumps([1 - first]).encode())
    of_both = by_attempt(read_failures(storage))
    assert first_cause(of_both[attempt]).startswith(expected)
    assert first_cause(of_both[before]).startswith(f"rank {1 - first} on vm vanished")

    storage.write(lost, b"[")
    assert list(by_attempt(read_failures(storage))) == [before], "a torn record is passed over"

    record_lost(storage, {first: "gave no sign of life"})
    said = first_cause(by_attempt(read_failures(storage))[attempt])
    assert said.splitlines()[0].endswith(": gave no sign of life"), "what the launcher knows of it"
