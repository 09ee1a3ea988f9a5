"""What a sweep searches: values for dotted keys of the job, drawn the same for the same seed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from plinth.errors import ConfigError
from plinth.sweep.records import Values

if TYPE_CHECKING:
    from numpy.random import Generator

KINDS = ("choice", "grid", "uniform", "log_uniform", "integer")
DRAWS_PER_TRIAL = 100
"""Attempts to draw a point that has not been drawn before."""


@dataclass
class Dimension:
    """The values of one key. Exactly one of choice, grid, uniform, log_uniform and integer."""

    choice: list[Any] | None = None
    """One of these, drawn."""
    grid: list[Any] | None = None
    """Each of these, with all combinations of other grids."""
    uniform: list[float] | None = None
    """[low, high]: a number between them."""
    log_uniform: list[float] | None = None
    """[low, high], both above 0: a number whose logarithm is uniform."""
    integer: list[int] | None = None
    """[low, high], both included."""
    when: dict[str, Any] = field(default_factory=dict)
    """Other keys of the space -> the value, or list of values, that they must have for this key to vary;
    otherwise it keeps the job's own value."""

    @property
    def kind(self) -> str:
        """The name of the field that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Any]:
        """Its list, or its two bounds."""
        return list(getattr(self, self.kind))

    @property
    def is_list(self) -> bool:
        """Whether it has a list of values rather than two bounds."""
        return self.kind in ("choice", "grid")

    def draw(self, rng: Generator) -> Any:
        """Draw a value."""
        if self.is_list:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integer":
            return int(rng.integers(low, high + 1))
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        import numpy as np  # not on top: `poma config` of a sweep draws nothing

        return float(np.exp(rng.uniform(math.log(low), math.log(high))))

    def clip(self, value: Any) -> Any:
        """The closest possible value."""
        if self.is_list:
            return value
        low, high = self.values
        clipped = min(max(value, low), high)
        return round(clipped) if self.kind == "integer" else float(clipped)

    def is_active(self, values: Values) -> bool:
        """Whether its condition holds."""
        return all(
            key in values and values[key] in (wanted if isinstance(wanted, list) else [wanted])
            for key, wanted in self.when.items()
        )


Space = Mapping[str, Dimension]


def validate(space: Space) -> None:
    """Refuse a space that cannot be searched.

    Raises:
        ConfigError: naming the key.
    """
    if not space:
        raise ConfigError("sweep.space is empty.", "Give a key of the job, such as main.lr, and its values.")
    seen: list[str] = []
    for key, dimension in space.items():
        _validate(key, dimension)
        for other in dimension.when:
            if other not in seen:
                raise ConfigError(
                    f"sweep.space.{key}.when names {other}, which does not come before it.",
                    f"Known there: {', '.join(seen) or 'nothing'}.",
                )
        seen.append(key)
    if size(space) == 1:
        raise ConfigError("sweep.space has one point.", "Use `poma pretrain`, or give a key more values.")


def _validate(key: str, dimension: Dimension) -> None:
    given = [f.name for f in fields(dimension) if f.name in KINDS and getattr(dimension, f.name) is not None]
    if len(given) != 1:
        raise ConfigError(
            f"sweep.space.{key} has {' and '.join(given) or 'no values'}.", f"Give one of {', '.join(KINDS)}."
        )
    values = dimension.values
    if dimension.is_list:
        if not values:
            raise ConfigError(f"sweep.space.{key}.{given[0]} is empty.")
        return
    if len(values) != 2 or not values[0] < values[1]:
        raise ConfigError(f"sweep.space.{key}.{given[0]} is {values}, expected [low, high] with low < high.")
    if given[0] == "log_uniform" and values[0] <= 0:
        raise ConfigError(f"sweep.space.{key}.log_uniform begins at {values[0]}, expected more than 0.")


def size(space: Space) -> float:
    """How many points there are; infinite with a range of real numbers."""
    if any(d.kind in ("uniform", "log_uniform") for d in space.values()):
        return math.inf
    return len(_all(space))


def draw(space: Space, trials: int, seed: int) -> list[Values]:
    """Distinct points: all combinations of the grids in turn, the other keys drawn. Trial i has the same
    values whatever the number of trials. There are fewer points if the space does not hold that many."""
    import numpy as np

    grids = {key: d for key, d in space.items() if d.kind == "grid"}
    corners = [
        dict(zip(grids, corner, strict=True))
        for corner in itertools.product(*(d.values for d in grids.values()))
    ]
    found: list[Values] = []
    known: set[str] = set()
    for index in range(min(trials, _cap(space))):
        rng = np.random.default_rng([seed, index])
        for attempt in range(DRAWS_PER_TRIAL):
            corner = corners[(index + attempt) % len(corners)]
            values: Values = {}
            for key, dimension in space.items():
                value = corner[key] if key in corner else dimension.draw(rng)
                if dimension.is_active(values):
                    values[key] = value
            if (mark := json.dumps(values, sort_keys=True)) not in known:
                known.add(mark)
                found.append(values)
                break
    return found


def grid(space: Space) -> list[Values]:
    """Every point of a space of lists and integers.

    Raises:
        ConfigError: a key has infinitely many values.
    """
    for key, dimension in space.items():
        if dimension.kind in ("uniform", "log_uniform"):
            raise ConfigError(
                f"sweep.space.{key} is {dimension.kind}, which a grid cannot have.",
                f"List its values as sweep.space.{key}.grid, or use sweep.searcher=random.",
            )
    return _all(space)


def _all(space: Space) -> list[Values]:
    found: list[Values] = [{}]
    for key, dimension in space.items():
        low_high = dimension.values
        possible = low_high if dimension.is_list else list(range(low_high[0], low_high[1] + 1))
        found = [
            {**values, key: value} if dimension.is_active(values) else values
            for values in found
            for value in (possible if dimension.is_active(values) else [None])
        ]
    return found


def _cap(space: Space) -> int:
    points = size(space)
    return int(points) if math.isfinite(points) else 2**31
