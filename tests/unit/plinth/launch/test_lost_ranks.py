"""Which of two ranks was killed is the controller's word, whatever the ranks themselves left behind: four
kills of each, as they come."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from plinth.launch.coordinator import Coordinator
from plinth.launch.lost_ranks import LostRanks
from plinth.observe.failures import BATCHES_SUFFIX, FOLDER, Failure, first_cause, read_failures
from plinth.ray_internals.train import REQUESTS_LOGGER
from plinth.storage import Storage

ATTEMPT = "20260101-113740-abc"
GLOO = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:31337"
CONTEXT: Any = None
"""The callback does not look at it."""


class Handle:
    """Of a coordinator in this process."""

    def __init__(self) -> None:
        self.of = Coordinator(0.0, Storage.from_uri("unused"), silent_after_s=30.0)
        self.clear_group = SimpleNamespace(remote=self.of.clear_group)

    def __reduce__(self) -> tuple[type[Handle], tuple[()]]:
        return Handle, ()


Leaves = Callable[[Storage, int, int], None]


def batches(storage: Storage, rank: int, at: float) -> None:
    line = {"time": at, "host": "vm", "pid": 5 + rank, "stage": "main", "step": 6, "sample_ids": ["room"]}
    storage.write(f"{FOLDER}/{ATTEMPT}-rank{rank}{BATCHES_SUFFIX}", json.dumps(line).encode() + b"\n")


def killed_was_silent_first(storage: Storage, killed: int, other: int) -> None:
    batches(storage, killed, 10.0)
    batches(storage, other, 10.009)


def killed_spoke_last(storage: Storage, killed: int, other: int) -> None:
    batches(storage, killed, 10.009)
    batches(storage, other, 10.0)


def other_met_the_gap(storage: Storage, killed: int, other: int) -> None:
    batches(storage, killed, 10.0)
    batches(storage, other, 9.0)
    error = Failure(ATTEMPT, other, "vm", 5, 9.5, "RuntimeError", GLOO, "", 6, ["room"], is_collective=True)
    storage.write(f"{FOLDER}/{ATTEMPT}-rank{other}.failure.json", json.dumps(asdict(error)).encode())


def other_left_nothing(storage: Storage, killed: int, other: int) -> None:
    batches(storage, killed, 10.0)


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize(
    "leave", [killed_was_silent_first, killed_spoke_last, other_met_the_gap, other_left_nothing]
)
def test_the_killed_rank_is_the_first_cause(leave: Leaves, killed: int, tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    leave(storage, killed, 1 - killed)
    died = WorkerHealthCheckFailedError("the worker died", ActorDiedError())
    LostRanks(storage, Handle()).after_exception(CONTEXT, {killed: died})
    assert first_cause(read_failures(storage)).startswith(f"rank {killed} on vm vanished in step 6 of main, ")


def test_in_the_controller_s_process_known_noise_is_dropped(tmp_path: Path) -> None:
    logger = logging.getLogger(REQUESTS_LOGGER)
    logger.filters.clear()
    pickle.loads(pickle.dumps(LostRanks(Storage.from_uri(tmp_path), Handle())))
    assert len(logger.filters) == 1


def test_a_worker_that_raised_is_not_lost(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    raised: Exception = ValueError("no depth")
    assert not isinstance(raised, RayTaskError)
    LostRanks(storage, Handle()).after_exception(CONTEXT, {0: raised})
    assert storage.list() == []


def test_who_asks_to_stop_while_a_failed_group_waits_hears_that_nobody_can_save(tmp_path: Path) -> None:
    """With any number of workers: what the group waits for may never come."""
    handle = Handle()
    assert not handle.of.request_stop()
    handle.of.register(0, 2)
    assert handle.of.request_stop()
    LostRanks(Storage.from_uri(tmp_path), handle).after_exception(CONTEXT, {0: ValueError("no depth")})
    assert not handle.of.request_stop()
    handle.of.register(0, 2)
    assert handle.of.request_stop()
