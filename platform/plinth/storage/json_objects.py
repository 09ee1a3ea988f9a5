"""Small JSON objects that a program keeps in storage; one that is damaged is named, with what to do."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from plinth import schema
from plinth.errors import ConfigError, StorageError
from plinth.storage.store import Storage

T = TypeVar("T")


class DamagedObjectError(StorageError):
    """An object that is there and is not what was written."""


def read_json(storage: Storage, key: str, fix: str, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object {name: value}.

    Args:
        fix: what to do where it is damaged, as an instruction.
        needed: names that it must have.

    Raises:
        MissingKeyError: there is none.
        DamagedObjectError: it is empty, cut off, or something else.
    """
    content = storage.read(key)
    try:
        found = json.loads(content)
        if not isinstance(found, dict) or not set(needed) <= found.keys():
            raise ValueError(f"expected the keys {', '.join(needed)}" if needed else "expected {key: value}")
    except (ValueError, RecursionError) as error:
        raise damaged(storage, key, error if content else "it is empty", fix) from None
    return found


def filled(kind: type[T], content: Any) -> T:
    """A dataclass from what was read of a JSON object.

    Raises:
        ValueError: no such fields, or values that do not fit their types.
    """
    try:
        if not isinstance(content, dict):
            raise ValueError("expected {name: value}")
        for problem in schema.problems(kind, content, kind.__name__):
            raise problem
        return kind(**content)
    except (ConfigError, TypeError) as error:
        raise ValueError(str(error)) from None


def damaged(storage: Storage, key: str, reason: object, fix: str) -> DamagedObjectError:
    """The error for an object that is not what was written."""
    return DamagedObjectError(f"{storage.uri}/{key} is damaged ({reason}).", fix)
