"""Fields of a config that hold a path or URI: the type says so, and one function makes any job absolute."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from plinth.schema import MISSING

T = TypeVar("T")
LOCATION, MODEL, RESULT = "location", "model", "result"
"""Marks in the type of a text field that `absolute` and `locations` look for."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What an id of the Hugging Face hub looks like: NAME or OWNER/NAME."""
Location = Annotated[str, LOCATION]
"""Type of a field that holds a path or URI. Packages that do not import this one write the same type."""
ModelLocation = Annotated[str, LOCATION, MODEL]
"""A folder, a URI, or a hub id: a relative path only where there is such a folder."""
ResultLocation = Annotated[str, LOCATION, RESULT]
"""A path or URI where a job's result goes."""


def absolute(config: T) -> T:
    """The same config for a process in another folder: every relative path in a field of type `Location`
    becomes absolute; URIs and hub ids stay."""
    return typing.cast(T, _replace_locations(config))


def at_home(config: T) -> T:
    """The same config with `~` and `~user` at the start of a path in such a field as the folder it stands
    for: within brackets, quotes and files no shell does that."""

    def change(value: str, marks: tuple[str, ...]) -> str:
        return str(Path(value).expanduser()) if value.startswith("~") else value

    return typing.cast(T, _replace_locations(config, change))


def locations(config: Any, mark: str = LOCATION) -> list[str]:
    """The values of all fields of type `Location` that are set, in the schema's order.

    Args:
        mark: only of fields whose type has this mark.
    """
    found: list[str] = []

    def look(value: str, marks: tuple[str, ...]) -> str:
        if mark in marks:
            found.append(value)
        return value

    _replace_locations(config, look)
    return found


def names_folder(source: str) -> bool:
    """Whether the source of a model is written as a path, whatever lies there: `demo/teacher` may be both."""
    return is_local(source) and (source.startswith((".", "/", "~")) or not HUB_ID.fullmatch(source))


def is_local(location: str) -> bool:
    """Whether a path or URI is a path."""
    return "://" not in location


def _absolute_location(value: str, marks: tuple[str, ...]) -> str:
    if not value or value == MISSING or not is_local(value) or (MODEL in marks and not Path(value).is_dir()):
        return value
    return str(Path(value).expanduser().absolute())


def _replace_locations(
    config: Any, change: Callable[[str, tuple[str, ...]], str] = _absolute_location
) -> Any:
    if isinstance(config, list):
        return [_replace_locations(item, change) for item in config]
    if isinstance(config, dict):
        return {key: _replace_locations(item, change) for key, item in config.items()}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    hints = typing.get_type_hints(type(config), include_extras=True)
    changed = {}
    for f in dataclasses.fields(config):
        value, marks = getattr(config, f.name), _marks(hints[f.name])
        if isinstance(value, str) and LOCATION in marks:
            changed[f.name] = change(value, marks)
        else:
            changed[f.name] = _replace_locations(value, change)
    return dataclasses.replace(config, **changed)


def _marks(hint: Any) -> tuple[str, ...]:
    """What is written beside the type in `Annotated[type, ...]` or `Annotated[type, ...] | None`."""
    if typing.get_origin(hint) is Annotated:
        return tuple(hint.__metadata__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(mark for argument in typing.get_args(hint) for mark in _marks(argument))
    return ()
