"""Whether two runs of a job are the same: batches, losses, weights, optimizer state."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor

from jobs.common.run_layout import ALL_STAGES
from plinth.checkpoint import tensor_files
from plinth.checkpoint.store import Fetched
from plinth.observe import incidents, ledger
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.world import World

LOSS_TOLERANCE = 1e-6
"""Relative, where the number of workers changes and zero.exact_sums is not at work: gradients are then added
in another order."""
STATE_TOLERANCE = 1e-5
"""For weights and Adam's moments, relative to the norm of all of them: where a gradient is nearly zero,
Adam makes of its rounding a step that is not."""
WEIGHTS, MOMENTS = ("master", "ema", "frozen", "buffer"), ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Interruption:
    """A run was ended and went on."""

    step: int
    """Where it went on, counted over all stages."""
    text: str
    """killed or stopped, and the numbers of workers where they differ."""


@dataclass
class Result:
    """What a run left, stages one after the other."""

    digests: list[str]
    """A hash of the sample ids, per step."""
    losses: list[float]
    world_sizes: list[int]
    tensors: dict[str, Tensor]
    """Everything in the last checkpoint of each stage, flat, by stage and key."""
    steps_redone: int
    restarts: int
    incidents: int
    interruptions: list[Interruption] = field(default_factory=list)
    weights_hash: str = ""
    """SHA-256 of the trained weights in the last checkpoint of the last stage."""


@dataclass
class Comparison:
    """A run beside the straight one. The differences are relative: of losses to the loss, of weights and
    moments the norm of the difference to the norm."""

    name: str
    text: str
    straight: Result
    result: Result
    must_be_identical: bool
    different_batches: int
    loss: float
    weights: float
    moments: float

    @property
    def holds(self) -> bool:
        """Whether it is the same result."""
        loss, state = (0.0, 0.0) if self.must_be_identical else (LOSS_TOLERANCE, STATE_TOLERANCE)
        same = self.different_batches == 0 and self.loss <= loss
        return same and self.weights <= state and self.moments <= state


def read_result(storage: Storage) -> Result:
    """What the run in `storage` left."""
    by_stage = {stage: read_lines(storage.child(stage)) for stage in ALL_STAGES}
    lines = [line for of_stage in by_stage.values() for line in of_stage]
    tensors: dict[str, Tensor] = {}
    for stage in ALL_STAGES:
        tensors |= {f"{stage}/{key}": tensor for key, tensor in _last_checkpoint(storage, stage).items()}
    records = ledger.read_records(storage)
    book = ledger.add_up(records)
    return Result(
        digests=[line["digest"] for line in lines],
        losses=[line["loss"] for line in lines],
        world_sizes=[line["world_size"] for line in lines],
        tensors=tensors,
        steps_redone=book.steps_redone,
        restarts=book.restarts,
        incidents=sum(len(incidents.read_all(storage.child(stage))) for stage in ALL_STAGES),
        interruptions=interruptions(records, {stage: len(of_stage) for stage, of_stage in by_stage.items()}),
        weights_hash=weights_hash(tensors),
    )


def interruptions(records: Sequence[ledger.Record], steps: Mapping[str, int]) -> list[Interruption]:
    """Where a run went on after it had been ended.

    Args:
        records: of its ledger.
        steps: of each stage, in their order.
    """
    starts = dict(zip(steps, [0, *accumulate(steps.values())], strict=False))
    found = []
    trained = sorted((record for record in records if record.marks), key=lambda record: record.started)
    for before, after in pairwise(trained):
        if before.attempt == after.attempt:
            continue  # the next stage of the same start
        text = "stopped" if before.outcome in (ledger.STOPPED, ledger.FINISHED) else "killed"
        if before.world_size != after.world_size:
            text += f", {before.world_size} → {after.world_size}"
        found.append(Interruption(starts[after.stage] + after.marks[0].step, text))
    return found


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the trained weights of the last stage, by key; empty without any."""
    found = [stage for stage in ALL_STAGES if any(key.startswith(f"{stage}/master") for key in tensors)]
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if found and key.startswith(f"{found[-1]}/master")):
        content = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {content.dtype} {content.numel()}\n".encode())
        digest.update(content.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if found else ""


def compare(name: str, text: str, straight: Result, result: Result, must_be_identical: bool) -> Comparison:
    """Compare a run with the straight one."""
    pairs = list(zip(straight.digests, result.digests, strict=False))
    missing = abs(len(straight.digests) - len(result.digests))
    losses = [abs(a - b) / max(abs(a), 1e-12) for a, b in zip(straight.losses, result.losses, strict=False)]
    return Comparison(
        name=name,
        text=text,
        straight=straight,
        result=result,
        must_be_identical=must_be_identical,
        different_batches=missing + sum(a != b for a, b in pairs),
        loss=max(losses, default=float("inf")),
        weights=_apart(straight.tensors, result.tensors, WEIGHTS),
        moments=max(_apart(straight.tensors, result.tensors, (kind,)) for kind in MOMENTS),
    )


def _apart(straight: dict[str, Tensor], other: dict[str, Tensor], kinds: tuple[str, ...]) -> float:
    """Norm of the difference over the norm; the worst of the stages."""
    if straight.keys() != other.keys():
        return float("inf")
    worst = 0.0
    for stage in ALL_STAGES:
        keys = [key for key in straight if key.startswith(f"{stage}/") and key.split("/")[1] in kinds]
        apart = sum(_squares(straight[key].double() - other[key].double()) for key in keys)
        whole = sum(_squares(straight[key].double()) for key in keys)
        worst = max(worst, (apart / whole) ** 0.5 if whole else 0.0)
    return worst


def _squares(values: Tensor) -> float:
    return float(values.square().sum())


def _last_checkpoint(storage: Storage, stage: str) -> dict[str, Tensor]:
    folder = storage.child(stage).child("checkpoints")
    with (
        tempfile.TemporaryDirectory() as scratch,
        Fetched(World(0, 1), folder, Path(scratch)) as fetched,
    ):
        if fetched.folder is None:
            return {}
        return tensor_files.read_whole(fetched.folder, tensor_files.lengths(fetched.folder))
