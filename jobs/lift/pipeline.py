"""Parts of the input through the three steps of `jobs.lift.tasks`: in this process, or as a Ray Data job."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from jobs.common import models
from jobs.common.cluster import check_room
from jobs.common.devices import own_device
from jobs.common.ray_data import quiet_data
from jobs.lift import lifters
from jobs.lift.images.sets import Piece
from jobs.lift.tasks import LiftedPart, ReadPart, Work, finish_part, lift_part, read_part
from jobs.lift.versions import Part
from plinth.ray_internals import cause_of


def lift_parts(work: Work, parts: Sequence[tuple[Piece, Part]], workers: int) -> Iterator[str]:
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


def _here(work: Work, parts: Iterable[tuple[Piece, Part]]) -> Iterator[str]:
    """Names of parts as they are committed, one after another in this process."""
    for piece, part in parts:
        yield finish_part(work, lift_part(work, read_part(work, piece, part)))


def _through_ray(work: Work, parts: Sequence[tuple[Piece, Part]], workers: int) -> Iterator[str]:
    """The same as a Ray Data job: images are decoded by tasks while models, in a pool of actors, lift others.

    A lifter without a model is a function like the others, and Ray Data makes one task of all three.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    _check_room(work)
    tasks = TaskPoolStrategy(size=workers)
    with quiet_data():
        rows = [{"item": pickle.dumps(part)} for part in parts]
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
        data = data.map(partial(_read_row, work), compute=tasks, num_cpus=1)
        if _has_model(work):
            cfg = work.lifter
            data = data.map(
                _LiftRow,
                fn_constructor_args=(work,),
                compute=ActorPoolStrategy(size=cfg.actors),
                num_cpus=cfg.cpus_per_actor,
                num_gpus=cfg.gpus_per_actor,
            )
        else:
            data = data.map(partial(_lift_row, work), compute=tasks, num_cpus=1)
        data = data.map(partial(_finish_row, work), compute=tasks, num_cpus=1)
        try:
            for row in data.iter_rows():
                yield row["item"]
        except Exception as error:
            raise cause_of(error) from None


def _has_model(work: Work) -> bool:
    return work.lifter.needs_model or work.teacher is not None


def _check_room(work: Work) -> None:
    """Refuse a pool that would wait for ever.

    Raises:
        ConfigError: the cluster is too small for the actors and one task besides.
    """
    cfg = work.lifter
    if _has_model(work):
        needs = {"CPU": cfg.actors * cfg.cpus_per_actor + 1, "GPU": cfg.actors * cfg.gpus_per_actor}
        check_room(f"{cfg.actors} lifters and a task", needs, "Lower lifter.actors, or what each claims.")


def _read_row(work: Work, row: dict[str, Any]) -> dict[str, Any]:
    return {"item": pickle.dumps(read_part(work, *pickle.loads(row["item"])))}


def _lift_row(work: Work, row: dict[str, Any]) -> dict[str, Any]:
    read: ReadPart = pickle.loads(row["item"])
    return {"item": pickle.dumps(lift_part(work, read))}


def _finish_row(work: Work, row: dict[str, Any]) -> dict[str, Any]:
    lifted: LiftedPart = pickle.loads(row["item"])
    return {"item": finish_part(work, lifted)}


class _LiftRow:
    """An actor of the pool: loads its models before the first part comes."""

    def __init__(self, work: Work) -> None:
        self._work = work
        lifters.open_lifter(work.lifter, work.storage)
        if work.teacher is not None:
            models.open_teacher(work.teacher, work.storage, own_device())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _lift_row(self._work, row)
