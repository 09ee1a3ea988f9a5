"""Parts of the input through the three steps of `jobs.lift.tasks`: in this process, or as a Ray Data job."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from jobs.common import models
from jobs.common.cluster import check_room
from jobs.common.devices import own_device
from jobs.common.ray_data import stream
from jobs.lift import lifters
from jobs.lift.images.sets import InputPiece
from jobs.lift.tasks import LiftedPart, LiftWork, ReadPart, finish_part, lift_part, read_part
from jobs.lift.versions import Part


def lift_parts(work: LiftWork, parts: Sequence[tuple[InputPiece, Part]], workers: int) -> Iterator[str]:
    """Names of parts as they are committed, in any order.

    Args:
        workers: CPU tasks of each kind at a time; 0 does everything here, without Ray.

    Raises:
        PlinthError: as a step raised it.
    """
    if workers and parts:
        yield from _through_ray(work, parts, workers)
    else:
        yield from _here(work, parts)


def _here(work: LiftWork, parts: Iterable[tuple[InputPiece, Part]]) -> Iterator[str]:
    """Names of parts as they are committed, one after another in this process."""
    for piece, part in parts:
        yield finish_part(work, lift_part(work, read_part(work, piece, part)))


def _through_ray(work: LiftWork, parts: Sequence[tuple[InputPiece, Part]], workers: int) -> Iterator[str]:
    """The same as a Ray Data job: images are decoded by tasks while models, in a pool of actors, lift others.

    A lifter without a model is a function like the others, and Ray Data makes one task of all three.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    _check_room(work)
    task = {"compute": TaskPoolStrategy(size=workers), "num_cpus": 1}
    lift: dict[str, Any] = {"fn": partial(_lift_row, work), **task}
    if _has_model(work):
        lifter = work.job.lifter
        lift = {
            "fn": _LiftRow,
            "fn_constructor_args": (work,),
            "compute": ActorPoolStrategy(size=lifter.actors),
            "num_cpus": lifter.cpus_per_actor,
            "num_gpus": lifter.gpus_per_actor,
        }
    read, finish = partial(_read_row, work), partial(_finish_row, work)
    yield from stream(parts, [{"fn": read, **task}, lift, {"fn": finish, **task}])


def _has_model(work: LiftWork) -> bool:
    return work.job.lifter.needs_model or work.job.teacher is not None


def _check_room(work: LiftWork) -> None:
    """Refuse a pool that could never start.

    Raises:
        ConfigError: the cluster is too small for the actors and one task besides.
    """
    lifter = work.job.lifter
    if _has_model(work):
        needs = {
            "CPU": lifter.actors * lifter.cpus_per_actor + 1,
            "GPU": lifter.actors * lifter.gpus_per_actor,
        }
        check_room(f"{lifter.actors} lifters and a task", needs, "Lower lifter.actors, or what each claims.")


def _read_row(work: LiftWork, row: dict[str, Any]) -> dict[str, Any]:
    return {"item": pickle.dumps(read_part(work, *pickle.loads(row["item"])))}


def _lift_row(work: LiftWork, row: dict[str, Any]) -> dict[str, Any]:
    read: ReadPart = pickle.loads(row["item"])
    return {"item": pickle.dumps(lift_part(work, read))}


def _finish_row(work: LiftWork, row: dict[str, Any]) -> dict[str, Any]:
    lifted: LiftedPart = pickle.loads(row["item"])
    return {"item": finish_part(work, lifted)}


class _LiftRow:
    """An actor of the pool: loads its models before the first part comes."""

    def __init__(self, work: LiftWork) -> None:
        self._work = work
        lifters.open_lifter(work.job.lifter, work.job.storage)
        if work.job.teacher is not None:
            models.open_teacher(work.job.teacher, work.job.storage, own_device())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _lift_row(self._work, row)
