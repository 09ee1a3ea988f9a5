"""Whether two runs of a job are the same: batches, losses, weights, optimizer state."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jobs.layout import STAGES
from plinth.storage import Storage
from plinth.train import flatfiles, incidents, ledger
from plinth.train.checkpoint_store import Fetched
from plinth.train.metrics import read_lines
from plinth.world import World

TOLERANCE = 1e-6
"""Of losses and weights, relative, where the number of workers changes: sums are added in another order."""
STATE_TOLERANCE = 1e-5
"""Of Adam's moments: the second is a square, and small where gradients are."""
WEIGHTS, MOMENTS = ("master", "ema", "frozen", "buffer"), ("exp_avg", "exp_avg_sq")


@dataclass
class Result:
    """What a run left, stages one after the other."""

    digests: list[str]
    """Of the sample ids of each step."""
    losses: list[float]
    world_sizes: list[int]
    tensors: dict[str, Tensor]
    """Everything in the last checkpoint of each stage, flat, by stage and key."""
    steps_redone: int
    restarts: int
    incidents: int


@dataclass
class Comparison:
    """A run beside the straight one. The differences are relative: of losses to the loss, of tensors to the
    largest number in the tensor."""

    name: str
    text: str
    straight: Result
    result: Result
    same_size: bool
    different_batches: int
    loss: float
    weights: float
    moments: float

    @property
    def holds(self) -> bool:
        """Whether it is the same result."""
        allowed, allowed_moments = (0.0, 0.0) if self.same_size else (TOLERANCE, STATE_TOLERANCE)
        return (
            self.different_batches == 0
            and self.loss <= allowed
            and self.weights <= allowed
            and self.moments <= allowed_moments
        )


def read_result(storage: Storage) -> Result:
    """What the run in `storage` left."""
    lines = [line for stage in STAGES for line in read_lines(storage.child(stage))]
    tensors: dict[str, Tensor] = {}
    for stage in STAGES:
        tensors |= {f"{stage}/{key}": tensor for key, tensor in _last_checkpoint(storage, stage).items()}
    book = ledger.summarise(storage)
    return Result(
        digests=[line["digest"] for line in lines],
        losses=[line["loss"] for line in lines],
        world_sizes=[line["world_size"] for line in lines],
        tensors=tensors,
        steps_redone=book.steps_redone,
        restarts=book.restarts,
        incidents=sum(len(incidents.read_all(storage.child(stage))) for stage in STAGES),
    )


def compare(name: str, text: str, straight: Result, result: Result, same_size: bool) -> Comparison:
    """Hold a run to the straight one."""
    pairs = list(zip(straight.digests, result.digests, strict=False))
    missing = abs(len(straight.digests) - len(result.digests))
    losses = [abs(a - b) / max(abs(a), 1e-12) for a, b in zip(straight.losses, result.losses, strict=False)]
    return Comparison(
        name=name,
        text=text,
        straight=straight,
        result=result,
        same_size=same_size,
        different_batches=missing + sum(a != b for a, b in pairs),
        loss=max(losses, default=float("inf")),
        weights=_largest(straight.tensors, result.tensors, WEIGHTS),
        moments=_largest(straight.tensors, result.tensors, MOMENTS),
    )


def _largest(straight: dict[str, Tensor], other: dict[str, Tensor], kinds: tuple[str, ...]) -> float:
    if straight.keys() != other.keys():
        return float("inf")
    keys = [key for key in straight if key.split("/")[1] in kinds]
    return max((_relative(straight[key], other[key]) for key in keys), default=0.0)


def _relative(a: Tensor, b: Tensor) -> float:
    if torch.equal(a, b):
        return 0.0
    a, b = a.double(), b.double()
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))


def _last_checkpoint(storage: Storage, stage: str) -> dict[str, Tensor]:
    folder = storage.child(stage).child("checkpoints")
    with (
        tempfile.TemporaryDirectory() as scratch,
        Fetched(World(0, 1), folder, Path(scratch)) as fetched,
    ):
        if fetched.folder is None:
            return {}
        return flatfiles.read_whole(fetched.folder, flatfiles.lengths(fetched.folder))
