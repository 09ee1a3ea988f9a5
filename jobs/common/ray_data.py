"""Ray Data as the commands use it: quiet, and with the first cause of a failure."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from plinth.ray_internals import cause_of


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars and logs: the jobs have theirs."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
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
