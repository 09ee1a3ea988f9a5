"""Ray Data as the commands use it: quiet, and with the first cause of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plinth.errors import PlinthError


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without its own progress bars and logs: the jobs have theirs."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        yield


def cause_of(error: BaseException) -> BaseException:
    """The user's mistake inside Ray's wrappings, or the error itself."""
    link: BaseException | None = error
    while link is not None:
        inner = getattr(link, "cause", None)
        if isinstance(link, PlinthError) and inner is None:
            return link
        link = inner if isinstance(inner, BaseException) else link.__cause__
    return error
