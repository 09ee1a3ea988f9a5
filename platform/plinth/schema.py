"""What a schema says of its keys: their types, their help, and whether a value fits.

A schema is a tree of dataclasses whose fields each have a docstring underneath. Values are compared with it
before OmegaConf merges them: OmegaConf would refuse them too, but without the whole key, a suggestion, or
words that its user knows.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import BooleanNode, FloatNode, IntegerNode, ValueNode
from omegaconf.errors import ValidationError

from plinth.errors import ConfigError

MISSING: Any = "???"
"""Default of a field that the job file must give."""
FROM_NUMBER = "from_number"
"""Method of a dataclass for which a whole number may stand, as the keys that it means."""
NUMBERS: dict[type, tuple[Callable[[Any], ValueNode], str]] = {
    bool: (BooleanNode, "true or false"),
    int: (IntegerNode, "a whole number"),
    float: (FloatNode, "a number"),
}
"""Type of a field -> what converts to it, and its name for people."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One leaf of a schema: dotted name, type, default and help text."""

    name: str
    type: str
    default: Any
    help: str


def describe(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a schema with its help text, for `poma config --help-keys`."""
    docs = _field_docs(schema)
    hints = typing.get_type_hints(schema)
    for f in dataclasses.fields(schema):
        name = f"{prefix}{f.name}"
        inner = dataclass_in(hints[f.name])
        if inner is not None and typing.get_origin(hints[f.name]) is not dict:
            suffix = "[]." if typing.get_origin(hints[f.name]) is list else "."
            yield from describe(inner, f"{name}{suffix}")
            continue
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        shown = "(required)" if default in (MISSING, dataclasses.MISSING) else default
        yield Key(name, type_name(hints[f.name]), shown, docs.get(f.name, ""))


def problems(schema: type, value: Any, origin: str, prefix: str = "") -> Iterator[ConfigError]:
    """Keys that a schema does not have, and values that do not fit their type: each with the name of its key
    and what would be right.

    Args:
        value: nested dicts and lists, as of a YAML file; only the keys that it has are looked at.
        origin: names it in errors.
        prefix: of its keys in errors.
    """
    if not isinstance(value, dict):
        return
    hints = typing.get_type_hints(schema)
    for key, item in value.items():
        if key in hints:
            yield from _value_problems(hints[key], item, origin, f"{prefix}{key}")
            continue
        close = difflib.get_close_matches(str(key), hints, n=1)
        fix = f"Did you mean {prefix}{close[0]}?" if close else _elsewhere(schema, str(key), hints)
        yield ConfigError(f"{origin}: unknown key {prefix}{key}.", fix)


def _value_problems(hint: Any, value: Any, origin: str, key: str) -> Iterator[ConfigError]:
    """Compare a value with the type of its field, at any depth."""
    if hint is Any or (isinstance(value, str) and (value == MISSING or "${" in value)):
        return  # not given yet, or another key's value
    where = f"{origin}: {key}"
    bare = _without_none(hint)
    parts = typing.get_args(bare)
    if value is None:
        if bare is hint:
            yield ConfigError(f"{where} has no value, expected {_expected(bare)}.")
    elif dataclasses.is_dataclass(bare):
        if isinstance(value, dict):
            yield from problems(typing.cast(type, bare), value, origin, f"{key}.")
        elif hasattr(bare, FROM_NUMBER):
            yield ConfigError(f"{where} is {value!r}, expected a whole number, or {_keys_of(bare)}")
        else:
            yield ConfigError(
                f"{where}: expected keys below it, found {value!r}.", f"It has {_keys_of(bare)}"
            )
    elif typing.get_origin(bare) is list:
        if not isinstance(value, list):
            inner = dataclass_in(parts[0])
            fix = f"Each item has {_keys_of(inner)}" if inner else f"Write it in brackets: {key}=[...]."
            yield ConfigError(f"{where}: expected a list, found {value!r}.", fix)
            return
        for i, item in enumerate(value):
            if parts[0] is str and isinstance(item, int) and not isinstance(item, bool):
                continue  # a whole number is its text already
            yield from _value_problems(parts[0], item, origin, f"{key}[{i}]")
    elif typing.get_origin(bare) is dict:
        if not isinstance(value, dict):
            yield ConfigError(f"{where}: expected keys below it, found {value!r}.")
            return
        for name, item in value.items():
            yield from _value_problems(parts[1], item, origin, f"{key}.{name}")
    else:
        yield from _leaf_problems(bare, value, where)


def _leaf_problems(bare: Any, value: Any, where: str) -> Iterator[ConfigError]:
    """Compare a value with the type of a field that has no keys below it."""
    if bare is str:
        if isinstance(value, bool | int | float):
            yield ConfigError(
                f"{where} is text, but YAML reads {value!r} as a {type(value).__name__}.", "Put it in quotes."
            )
        elif not isinstance(value, str):
            yield ConfigError(f"{where}: expected text, found {value!r}.")
        elif "\0" in value:
            yield ConfigError(f"{where} is {value!r}, and no name holds the character \\0.", "Leave it out.")
    elif isinstance(bare, type) and issubclass(bare, enum.Enum):
        named = isinstance(value, str) and value in bare.__members__  # lists and dicts have no hash
        if not (named or isinstance(value, bare)):
            close = difflib.get_close_matches(str(value), bare.__members__, n=1)
            fix = f"Did you mean {close[0]}?" if close else ""
            yield ConfigError(f"{where} is {value!r}, expected {_expected(bare)}.", fix)
    elif bare in NUMBERS:
        try:
            NUMBERS[bare][0](value)
        except ValidationError:
            yield ConfigError(f"{where} is {value!r}, expected {_expected(bare)}.")


def long_form(schema: type, value: Any) -> Any:
    """Numbers in place of a dataclass that has a `from_number`, as the keys that they stand for."""
    if not isinstance(value, dict):
        return value
    hints = typing.get_type_hints(schema)
    return {key: _long_value(hints.get(key), item) for key, item in value.items()}


def _long_value(hint: Any, item: Any) -> Any:
    """The same of one value, wherever in its type the dataclass is."""
    hint = _without_none(hint)
    inner = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        from_number = getattr(hint, FROM_NUMBER, None)
        is_number = isinstance(item, int) and not isinstance(item, bool)
        return from_number(item) if from_number and is_number else long_form(typing.cast(type, hint), item)
    if typing.get_origin(hint) is list and isinstance(item, list):
        return [_long_value(inner[0], each) for each in item]
    if typing.get_origin(hint) is dict and isinstance(item, dict):
        return {key: _long_value(inner[1], each) for key, each in item.items()}
    return item


def _without_none(hint: Any) -> Any:
    """`X` of `X | None`; any other type as it is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        left = [part for part in typing.get_args(hint) if part is not type(None)]
        return left[0] if len(left) == 1 else hint
    return hint


def _expected(hint: Any) -> str:
    """A type in the words of a job file."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
        return "keys below it"
    if typing.get_origin(hint) is list:
        return "a list"
    return NUMBERS[hint][1] if hint in NUMBERS else "text"


def _keys_of(schema: Any) -> str:
    return f"the keys {', '.join(field.name for field in dataclasses.fields(schema))}."


def _elsewhere(schema: type, key: str, hints: dict[str, Any]) -> str:
    """Where in the tree a key of that name lives, else what is possible here."""
    places = [k.name for k in describe(schema) if k.name.split(".")[-1] == key]
    if places:
        return f"Did you mean {' or '.join(places[:3])}?"
    return f"Possible here: {', '.join(hints)}."


def dataclass_in(hint: Any) -> type | None:
    """The dataclass in `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint)
    if typing.get_origin(hint) in (list, dict, typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            if (found := dataclass_in(argument)) is not None:
                return found
    return None


def hint_of(schema: type, dotted: str) -> Any:
    """The type of a dotted key such as data.sources[0].uri; None for a key that the schema lacks."""
    hint: Any = schema
    for part in dotted.replace("]", "").replace("[", ".").split("."):
        if part.isdigit():
            continue
        inner = dataclass_in(hint)
        hint = typing.get_type_hints(inner).get(part) if inner is not None else None
    return hint


def is_text(hint: Any) -> bool:
    """Whether a field of a type takes text: `str` or `str | None`."""
    return _without_none(hint) is str


def type_name(hint: Any) -> str:
    """A type as `poma config --help-keys` shows it."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(m.name for m in hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join("None" if h is type(None) else type_name(h) for h in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"list[{type_name(typing.get_args(hint)[0])}]"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _field_docs(schema: type) -> dict[str, str]:
    """The string literal under each field (nearest class in the MRO wins)."""
    docs: dict[str, str] = {}
    for cls in reversed([c for c in schema.__mro__ if dataclasses.is_dataclass(c)]):
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
        for here, below in itertools.pairwise(body):
            if (
                isinstance(here, ast.AnnAssign)
                and isinstance(here.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                docs[here.target.id] = " ".join(below.value.value.split())
    return docs
