"""Stop on all ranks, with the same error, before a number that is not finite reaches the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from plinth.engine.stage import Batch
from plinth.errors import NonFiniteError
from plinth.redaction import printable
from plinth.world import World

SHOWN_IDS = 8
REPLAY_TOLERANCE = (
    0.01  # relative to the largest feature: rounding stays below it, another dropout is far above
)


def suspects(batch: Batch, features: Mapping[str, Tensor], loss: Tensor) -> list[str]:
    """Ids of the samples of a micro-batch whose features are not finite; all of them if only the
    micro-batch's own loss is not finite; none if all is finite."""
    ids = list(batch.get("sample_id") or [str(key) for key in batch["sample_key"].tolist()])
    bad = torch.zeros(len(ids), dtype=torch.bool)
    for rows in features.values():
        if rows.is_floating_point():
            bad |= ~torch.isfinite(rows.detach()).flatten(1).all(1).cpu()
    if not bool(bad.any()) and not bool(torch.isfinite(loss)):
        return ids
    return [name for name, is_bad in zip(ids, bad.tolist(), strict=True) if is_bad]


def fail(what: str, step: int, sample_ids: list[str], world: World) -> NoReturn:
    """Raise on every rank, naming the ranks and samples at fault.

    Args:
        sample_ids: suspects on this rank; empty where nothing was wrong.

    Raises:
        NonFiniteError: always.
    """
    found = [sample_ids] * world.world_size
    if world.world_size > 1:
        dist.all_gather_object(found, sample_ids)
    places = []
    for rank, ids in enumerate(found):
        if ids:
            more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
            places.append(f"rank {rank}: {', '.join(map(printable, ids[:SHOWN_IDS]))}{more}")
    where = f" Samples: {'; '.join(places)}." if places else ""
    error = NonFiniteError(
        f"The {what} of step {step} is not finite; nothing was applied.{where}",
        "Look at these samples (`poma shards preview`), lower optim.lr, or resume from the last checkpoint.",
    )
    error.by_rank = found
    raise error


def replay_differences(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How far the features of two passes of a micro-batch are apart, as a share of the largest; scalars."""
    found = {}
    for name, rows in second.items():
        if rows.requires_grad:
            known = first[name].detach().float()
            largest = known.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
            found[name] = (rows.detach().float() - known).abs().amax() / largest
    return found


def check_replay(differences: Mapping[str, float]) -> None:
    """Refuse a stage whose second pass gives other features than its first: the gradients would be wrong.

    Args:
        differences: as `replay_differences`, by feature.

    Raises:
        RuntimeError: naming the feature. The stage is at fault, not the job.
    """
    for name, difference in differences.items():
        if difference > REPLAY_TOLERANCE:
            raise RuntimeError(
                f"feature {name!r} differs by {difference:.3g} of its largest element between the passes of "
                "a micro-batch: the stage must draw the random numbers of its features before those of its "
                "local losses"
            )
