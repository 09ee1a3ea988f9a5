"""Ray Data as the commands use it: quiet, with the first cause of a failure, and shard by shard.

A data set that is made of another one, shard by shard, is made exactly once: what became of a shard is
committed under a hash of all that decides it (`make_shards`), so that a killed job goes on where it was, and
shards that the data set got since are added.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from jobs.common.cluster import check_room
from jobs.common.objects import names_in
from jobs.display.progress import Progress
from plinth.data.manifest import ShardEntry
from plinth.errors import cause_of
from plinth.ray_internals.data import drop_data_statistics
from plinth.storage import Storage

T = TypeVar("T")


class ShardWork(Protocol):
    """What all shards of such a job share; picklable."""

    @property
    def output(self) -> Storage:
        """Where the shards and their commits go."""
        ...

    def name(self, entry: ShardEntry) -> str:
        """Hash of all that decides what a shard becomes."""
        ...


class Loaded(Generic[T]):
    """What this process has loaded last, and for which work; one of them in a module of tasks."""

    def __init__(self) -> None:
        self._key: object = None
        self._found: T | None = None

    def get(self, key: object, load: Callable[[], T]) -> T:
        """That of `key`; `load` is called where it is another one."""
        if self._found is None or self._key != key:
            self._found, self._key = load(), key
        return self._found


@dataclass(frozen=True)
class Pool:
    """Actors that run at a time, and what each claims; no workers runs everything here, without Ray."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float


def make_shards(
    work: ShardWork,
    shards: Sequence[ShardEntry],
    do: Callable[[Any, ShardEntry], str],
    load: Callable[[Any], object],
    pool: Pool,
    commits: str,
    label: str,
) -> None:
    """Make what has no commit yet.

    Args:
        do: given the work and a shard, writes what becomes of it and then its commit; returns its name.
        load: given the work, loads the models, before the first shard comes.
        commits: folder of the output where commits are, each named by `work.name`.

    Raises:
        ConfigError: the cluster has not as much as the pool claims.
        PlinthError: as `do` raised it.
    """
    done = names_in(work.output, commits)
    left = [entry for entry in shards if work.name(entry) not in done]
    if len(left) < len(shards):
        print(f"{work.output.uri}: {len(shards) - len(left)} of {len(shards)} shards are done already")
    progress = Progress(label, "shards", len(left))
    names = (
        _through_pool(work, left, do, load, pool) if pool.workers and left else (do(work, e) for e in left)
    )
    for _ in names:
        progress.advance()


def _through_pool(
    work: ShardWork,
    shards: Sequence[ShardEntry],
    do: Callable[[Any, ShardEntry], str],
    load: Callable[[Any], object],
    pool: Pool,
) -> Iterator[str]:
    """Names of commits as they are made by a pool of actors; one that dies is started again."""
    from ray.data import ActorPoolStrategy

    needs = {"CPU": pool.workers * pool.cpus_per_worker, "GPU": pool.workers * pool.gpus_per_worker}
    check_room(f"{pool.workers} workers", needs, "Lower workers, or what each claims.")
    step = {
        "fn": _ShardActor,
        "fn_constructor_args": (work, do, load),
        "compute": ActorPoolStrategy(size=pool.workers),
        "num_cpus": pool.cpus_per_worker,
        "num_gpus": pool.gpus_per_worker,
    }
    yield from stream(shards, [step])


class _ShardActor:
    """An actor of the pool: loads its models before the first shard comes."""

    def __init__(
        self, work: ShardWork, do: Callable[[Any, ShardEntry], str], load: Callable[[Any], object]
    ) -> None:
        self._work, self._do = work, do
        load(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"item": self._do(self._work, pickle.loads(row["item"]))}


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars and logs: the jobs have theirs. Enter it where Ray runs."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    drop_data_statistics()
    with DataContext.current(context):
        yield


def stream(items: Sequence[object], steps: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Results as they are made, in any order; an actor or task that dies is started again.

    Args:
        items: each travels pickled, as the `item` of a row of its own.
        steps: keyword arguments of `ray.data.Dataset.map`, one dict per step.

    Raises:
        PlinthError: as a step raised it.
    """
    import ray

    with quiet_data():
        rows = [{"item": pickle.dumps(item)} for item in items]
        data = ray.data.from_items(rows, override_num_blocks=len(rows))
        for step in steps:
            data = data.map(**step)
        try:
            for row in data.iter_rows():
                yield row["item"]
        except Exception as error:
            raise cause_of(error) from None
