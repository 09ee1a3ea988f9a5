"""Fields of a config that count something: the type says from which number on, and every job is checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

LEAST = "least "
"""Begins the mark in the type of a whole number; the least value that it may have follows."""
Count = Annotated[int, "least 1"]
"""Type of a field that is 1 or more. Packages that do not import this one write the same type."""
CountOrZero = Annotated[int, "least 0"]
"""Type of a field that is 0 or more."""


def too_small(config: Any, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Dotted key, value and least value of each field of a config that is below it, at any depth."""
    if isinstance(config, list):
        for i, item in enumerate(config):
            yield from too_small(item, f"{prefix.removesuffix('.')}[{i}].")
    elif isinstance(config, dict):
        for name, item in config.items():
            yield from too_small(item, f"{prefix}{name}.")
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = typing.get_type_hints(type(config), include_extras=True)
        for field in dataclasses.fields(config):
            value, least = getattr(config, field.name), _least(hints[field.name])
            if least is not None and isinstance(value, int) and value < least:
                yield f"{prefix}{field.name}", value, least
            yield from too_small(value, f"{prefix}{field.name}.")


def _least(hint: Any) -> int | None:
    """What is written beside the type in `Annotated[int, mark]` or `Annotated[int, mark] | None`."""
    if typing.get_origin(hint) is Annotated:
        marks = (mark for mark in hint.__metadata__ if isinstance(mark, str) and mark.startswith(LEAST))
        return next((int(mark.removeprefix(LEAST)) for mark in marks), None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found = (_least(argument) for argument in typing.get_args(hint))
        return next((least for least in found if least is not None), None)
    return None
