"""An epoch cut at a third and resumed with another number of consumers: who sees which samples how often.

Every consumer takes its batches up to a third of the epoch; the state that the library has for a checkpoint
is taken from rank 0; all processes end, and others, in another number, read the rest of the epoch from it.
The global batch stays the same. A library without a state in mid-epoch begins the epoch again, and what it
has seen before the cut is seen twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.streaming.measure import ReadPath
from benchmarks.streaming.workers import WorkerError

RESIZES = ((1, 2), (2, 1))


@dataclass(frozen=True)
class Cut:
    """What became of the samples of an epoch."""

    before: int
    """Consumers up to the cut."""
    after: int
    once: int
    twice: int
    """Seen more than once."""
    never: int
    has_state: bool
    failed: str = ""


def cut_and_resume(path: ReadPath, ids: Sequence[str], batch: int, before: int, after: int) -> Cut:
    """Read an epoch of the samples `ids` in two parts."""
    batches = len(ids) // batch // 3
    with path.start(before) as group:
        group.wait_until_ready()
        first = group.ask(do="part", batches=batches, state=None)
    state = first[0]["state"]
    try:
        with path.start(after) as group:
            group.wait_until_ready()
            rest = group.ask(do="part", batches=None, state=state)
    except WorkerError as error:
        return Cut(before, after, 0, 0, 0, state is not None, str(error).splitlines()[-1])
    seen = Counter(sample for answer in (*first, *rest) for sample in answer["ids"])
    counts = Counter(seen[sample] for sample in ids)
    return Cut(before, after, counts[1], len(ids) - counts[0] - counts[1], counts[0], state is not None)


def cuts(paths: Mapping[str, ReadPath], ids: Sequence[str], batch: int) -> dict[str, list[Cut]]:
    """All of them at all changes of size."""
    return {
        name: [cut_and_resume(path, ids, batch, before, after) for before, after in RESIZES]
        for name, path in paths.items()
    }
