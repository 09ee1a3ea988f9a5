"""Ray Data as the commands use it: without its own progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars and logs: the jobs have theirs."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        yield
