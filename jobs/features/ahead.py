"""Items made ahead by a thread, so that reading and computing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], count: int) -> Generator[T]:
    """The same items in the same order; up to `count` of them are made before they are asked for. What making
    one raises is raised where it would have come."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="poma-ahead") as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        while True:
            found = waiting.popleft().result()
            if found is end:
                return
            waiting.append(pool.submit(next, items, end))
            yield found  # type: ignore[misc]  # it is no `end`
