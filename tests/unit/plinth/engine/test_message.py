"""The numbers of a step, of all ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plinth.engine import process
from plinth.engine.message import Message
from plinth.world import World
from tests.helpers.ranks import run_ranks

CPU = torch.device("cpu")


def sent(rank: int) -> Message:
    """Of every kind that a step sends."""
    message = Message(CPU)
    message.add_scalars("losses", [torch.tensor(1.5 + rank), torch.tensor(2**24 + 1)])
    message.add("nothing", torch.zeros(0))
    message.add(
        "numbers", torch.tensor([float(rank), -float("inf"), float(2**52 + rank)], dtype=torch.float64)
    )
    message.add_scalars("none", [])
    return message


def test_alone_it_gives_back_what_was_added() -> None:
    found = sent(0).exchange(World(0, 1))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "losses": [[1.5, 2**24 + 1]],
        "nothing": [[]],
        "numbers": [[0.0, -float("inf"), 2.0**52]],
        "none": [[]],
    }


def exchanged() -> dict[str, np.ndarray]:
    """On all ranks."""
    proc = process.start(threads=1)
    return dict(sent(proc.world.rank).exchange(proc.world))


@pytest.mark.slow
def test_every_rank_has_the_numbers_of_all() -> None:
    for of_rank in run_ranks(2, exchanged):
        assert of_rank["losses"].tolist() == [[1.5, 2**24 + 1], [2.5, 2**24 + 1]]
        assert of_rank["numbers"][:, 2].tolist() == [2.0**52, 2.0**52 + 1], "exact in fp64"
