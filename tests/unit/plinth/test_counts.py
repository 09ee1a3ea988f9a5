"""Counts in job files: what is too small is one line with the key, wherever it stands."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field

import pytest

import poma3d.counts
from jobs.jobfile import SCHEMAS, open_schema
from plinth import counts
from plinth.config import build
from plinth.counts import Count, CountOrZero, too_small
from plinth.errors import ConfigError


@dataclass
class Part:
    size: Count = 1
    """1 or more."""
    left: CountOrZero = 0
    """0 or more."""
    steps: Count | None = None
    """1 or more, or nothing."""
    seed: int = -1
    """Any."""


@dataclass
class Job:
    part: Part = field(default_factory=Part)
    """One."""
    parts: list[Part] = field(default_factory=list)
    """Some."""
    named: dict[str, Part] = field(default_factory=dict)
    """Named."""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"part": {"size": 0}}, "job.yaml: part.size is 0, expected 1 or more."),
        ({"part": {"left": -1}}, "part.left is -1, expected 0 or more."),
        ({"part": {"steps": 0}}, "part.steps is 0, expected 1 or more."),
        ({"parts": [{}, {"size": -2}]}, "parts[1].size is -2"),
        ({"named": {"a": {"size": 0}}}, "named.a.size is 0"),
    ],
)
def test_what_is_too_small_is_named(values: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Job, [("job.yaml", values)])
    assert says in str(caught.value)


def test_what_is_large_enough_passes() -> None:
    made = build(Job, [("job.yaml", {"part": {"size": 1, "left": 0, "steps": 1, "seed": -5}, "parts": [{}]})])
    assert not list(too_small(made))


def test_both_packages_write_the_same_types() -> None:
    assert (poma3d.counts.Count, poma3d.counts.CountOrZero) == (counts.Count, counts.CountOrZero)


def fields(schema: type) -> set[str]:
    """Names of all fields below a schema that have a least value."""
    found = set()
    for name, hint in typing.get_type_hints(schema, include_extras=True).items():
        if counts.LEAST in repr(hint):
            found.add(name)
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and hasattr(part, "__dataclass_fields__"):
                found |= fields(part)
    return found


def test_counts_of_the_jobs_say_so() -> None:
    found = set().union(*(fields(open_schema(kind)) for kind in SCHEMAS))
    assert {
        "micro_batch_size",
        "global_batch_size",
        "scenes_per_shard",
        "batch_size",
        "workers",
        "trials",
    } <= found
