"""Items made ahead: the same, in order, and not more than asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from jobs.features.ahead import ahead


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("items", [0, 1, 5])
def test_the_same_items_in_the_same_order(items: int, count: int) -> None:
    assert list(ahead(iter(range(items)), count)) == list(range(items))


def test_what_making_an_item_raises_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    made = ahead(items(), 3)
    assert next(made) == 1
    with pytest.raises(KeyError):
        next(made)


def test_no_more_is_made_than_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with closing(ahead(items(), 2)) as found:
        assert next(found) == 0
    assert len(made) <= 4  # the first, two ahead, and one that was under way
