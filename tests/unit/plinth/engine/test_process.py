"""What a process sets up, and errors that all ranks share."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest
import torch

from plinth.engine import process
from plinth.errors import StorageError
from plinth.world import World
from tests.helpers.ranks import run_ranks

pytestmark = pytest.mark.slow


def started() -> tuple[World, str, int, str, str]:
    """On all ranks: what `start` gives and sets."""
    found = process.start(threads=1)
    return found.world, found.device.type, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], found.host


def test_every_rank_knows_its_place_and_its_threads() -> None:
    results = run_ranks(2, started)
    assert [r[0] for r in results] == [World(0, 2), World(1, 2)]
    for _, device, threads, variable, host in results:
        assert (device, threads, variable) == ("cuda" if torch.cuda.is_available() else "cpu", 1, "1")
        assert host


def drawn() -> float:
    """The first random number of a rank that has drawn others before it starts."""
    torch.rand(3)
    process.start(threads=1)
    return torch.rand(1).item()


def test_random_numbers_begin_as_in_a_process_that_has_done_nothing() -> None:
    fresh = torch.rand(1, generator=torch.Generator()).item()
    assert run_ranks(2, drawn) == [fresh] * 2


def shared(failing_rank: int | None) -> Any:
    """On all ranks: the results, or the error's text."""
    world = process.start(threads=1).world

    def action() -> int:
        if world.rank == failing_rank:
            raise StorageError("disk full.", "Free some.")
        return world.rank * 10

    try:
        return process.on_all_ranks(world, action)
    except StorageError as error:
        return str(error)


def test_results_are_shared_and_so_is_the_error_of_one() -> None:
    assert run_ranks(2, shared, None) == [[0, 10], [0, 10]]
    assert run_ranks(2, shared, 1) == ["disk full. Free some."] * 2


def test_alone_it_needs_no_process_group() -> None:
    assert process.on_all_ranks(World(0, 1), lambda: 7) == [7]


def test_a_pass_is_seeded_as_torch_seeds() -> None:
    process.seed_pass(5, torch.device("cpu"))
    found = torch.rand(4)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(4))


def kernels() -> tuple[bool, bool, str]:
    """What is set for CUDA. The order in which a GPU adds cannot be seen here."""
    process.take_deterministic_kernels()
    is_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), is_warning, os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_deterministic_kernels_are_asked_for() -> None:
    assert run_ranks(1, kernels) == [(True, True, ":4096:8")]


def test_only_the_own_prints_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    with process.without_prints():
        sys.stdout.write("of a library")
        other = threading.Thread(target=lambda: sys.stdout.write("told to stop\n"))
        other.start()
        other.join()
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "told to stop\nafter\n"
