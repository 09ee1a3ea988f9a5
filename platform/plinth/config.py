"""Strict job files: YAML -> typed dataclasses, with dotted overrides.

A job's schema is a tree of dataclasses whose fields each have a docstring underneath: the help text.
An unknown key, a wrong type or a missing value stops before anything starts, with the key, a
suggestion and what would be right. Environment values are never read into a config, because the
resolved config is printed and saved: secrets are named, not copied.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plinth.counts import too_small
from plinth.digests import json_digest
from plinth.errors import ConfigError
from plinth.yaml_text import quote_odd_integers

T = TypeVar("T")
MISSING: Any = "???"
"""Default of a field that the job file must give."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One leaf of a schema: dotted name, type, default and help text."""

    name: str
    type: str
    default: Any
    help: str


def load(schema: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a job file and apply `key=value` overrides.

    Args:
        schema: the dataclass that the file describes.
        path: a YAML file.
        overrides: dotted assignments such as `optim.lr=3e-4` or `sources[0].uri=rooms`; values are YAML.

    Raises:
        ConfigError: naming the file, the key and what would be right.
    """
    return resolve(schema, read(path), str(path), overrides)


def resolve(schema: type[T], raw: DictConfig, origin: str, overrides: Sequence[str] = ()) -> T:
    """The same for YAML that was read before.

    Args:
        origin: names it in errors.

    Raises:
        ConfigError: naming `origin`, the key and what would be right.
    """
    layers: list[tuple[str, Any]] = [(origin, raw)]
    for override in _parse_overrides(schema, overrides):
        below = [OmegaConf.structured(schema), *(layer for _, layer in layers)]
        layers.append(_whole_list(*override, below))
    return build(schema, layers)


def read(path: str | Path) -> DictConfig:
    """A YAML file, not yet compared with any schema.

    Raises:
        ConfigError: no such file, or not `key: value` lines.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such job file.", _closest_file(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8.") from None
    return parse(text, str(path))


def parse(text: str, origin: str) -> DictConfig:
    """YAML of a job file. `origin` names it in errors.

    Raises:
        ConfigError: not `key: value` lines.
    """
    try:
        raw = OmegaConf.create(quote_odd_integers(text))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, DictConfig):
        raise ConfigError(f"{origin}: expected `key: value` lines at the top, found a {type(raw).__name__}.")
    return raw


def build(schema: type[T], layers: Sequence[tuple[str, Any]], prefix: str = "") -> T:
    """Merge `(origin, mapping)` layers onto the schema's defaults, the last one winning.

    Args:
        prefix: of the keys in errors, where the schema is a part of another one.
    """
    merged = OmegaConf.structured(schema)
    for origin, layer in layers:
        plain = OmegaConf.to_container(layer) if isinstance(layer, DictConfig) else layer
        plain = _long_form(schema, plain)
        _refuse_environment(plain, origin, prefix)
        _check_keys(schema, plain, origin, prefix)
        try:
            merged = OmegaConf.merge(merged, plain)
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None) or "a value"
            hint = _hint_of(schema, key)
            wanted = _type_name(hint) if hint is not None else ""
            reason = str(error).splitlines()[0]
            fix = f"Expected {wanted}." if wanted else ""
            raise ConfigError(f"{origin}: {prefix}{key}: {reason}.", fix) from None
    file = layers[0][0] if layers else schema.__name__
    try:
        missing = sorted(OmegaConf.missing_keys(merged))
        if not missing:
            return _checked(typing.cast(T, OmegaConf.to_object(merged)), file, prefix)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
    raise ConfigError(
        f"{file}: no value for {', '.join(prefix + key for key in missing)}.",
        f"Add it to the file or as {prefix}{missing[0]}=VALUE on the command line.",
    )


def _checked(config: T, file: str, prefix: str) -> T:
    for key, value, least in too_small(config, prefix):
        raise ConfigError(f"{file}: {key} is {value}, expected {least} or more.")
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config: JSON types only."""
    container = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    return typing.cast(dict[str, Any], container)


def to_yaml(config: Any) -> str:
    """The resolved config as YAML, keys in the schema's order."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def fingerprint(config: Any) -> str:
    """Hash of a config's values, independent of key order."""
    plain = config if isinstance(config, dict) else to_dict(config)
    return json_digest(plain)[:16]


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Dotted keys whose value differs, with both values; `None` where a side lacks the key."""
    a, b = dict(_leaves(old)), dict(_leaves(new))
    return [(k, a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]


def describe(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a schema with its help text, for `poma config --help-keys`."""
    docs = _field_docs(schema)
    hints = typing.get_type_hints(schema)
    for f in dataclasses.fields(schema):
        name = f"{prefix}{f.name}"
        inner = _dataclass_in(hints[f.name])
        if inner is not None and typing.get_origin(hints[f.name]) is not dict:
            suffix = "[]." if typing.get_origin(hints[f.name]) is list else "."
            yield from describe(inner, f"{name}{suffix}")
            continue
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        shown = "(required)" if default in (MISSING, dataclasses.MISSING) else default
        yield Key(name, _type_name(hints[f.name]), shown, docs.get(f.name, ""))


def _parse_overrides(schema: type, overrides: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{text}': expected an override of the form key=value, such as optim.lr=3e-4.")
        try:
            layer = OmegaConf.from_dotlist([f"{key}={quote_odd_integers(value)}"])
            if _is_text(_hint_of(schema, key)) and value != "null" and value[:1] not in ("'", '"'):
                OmegaConf.update(layer, key, value)  # a revision such as 0123 is no number
            parsed = OmegaConf.to_container(layer)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"'{text}': the value is not valid YAML: {reason}") from None
        yield f"'{text}'", typing.cast(dict[str, Any], parsed)


def _whole_list(origin: str, layer: dict[str, Any], below: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """An override of a list's item (`sources[0].uri=x`) as one of the list: layers replace lists whole.

    Args:
        below: the layers that come before, the schema's defaults first.

    Raises:
        ConfigError: the list has no such item, and it is not the next one.
    """
    name, item, _ = origin.strip("'").partition("[")
    if not item or "=" in name:
        return origin, layer
    path, change = name.split("."), layer
    for part in path:
        change = change[part]
    found = next((known for known in (_list_at(other, path) for other in reversed(below)) if known), [])
    made: Any = _with_items(found, change, f"{origin}: {name}")
    for part in reversed(path):
        made = {part: made}
    return origin, made


def _list_at(layer: Any, path: Sequence[str]) -> list[Any]:
    """The list at a path of a layer; empty where it has none."""
    value = OmegaConf.to_container(layer) if isinstance(layer, DictConfig) else layer
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _with_items(value: Any, change: Any, where: str) -> Any:
    """`value` with the items and keys of `change`, in which an item's key is its number as text."""
    if isinstance(value, list) and isinstance(change, dict):
        items = list(value)
        for number, inner in change.items():
            if not str(number).isdecimal() or int(number) > len(items):
                raise ConfigError(f"{where}[{number}]: there are {len(items)} items, counted from 0.")
            at = int(number)
            items[at : at + 1] = [_with_items(items[at] if at < len(items) else {}, inner, where)]
        return items
    if isinstance(value, dict) and isinstance(change, dict):
        return value | {key: _with_items(value.get(key), inner, where) for key, inner in change.items()}
    return change


def _refuse_environment(value: Any, origin: str, key: str) -> None:
    """Refuse values that read an environment variable, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_environment(item, origin, f"{key}{name}.")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_environment(item, origin, f"{key.rstrip('.')}[{i}].")
    elif isinstance(value, str) and "${oc.env" in value:
        raise ConfigError(
            f"{origin}: {key.rstrip('.')} reads an environment variable, but configs are saved.",
            "Name the variable instead (fields that end in _env).",
        )


def _check_keys(schema: type, value: Any, origin: str, prefix: str = "") -> None:
    """Unknown keys first: OmegaConf would find them too, but not suggest what was meant."""
    if not isinstance(value, dict):
        return
    hints = typing.get_type_hints(schema)
    for key, item in value.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            fix = f"Did you mean {prefix}{close[0]}?" if close else _elsewhere(schema, str(key), hints)
            raise ConfigError(f"{origin}: unknown key {prefix}{key}.", fix)
        inner = _dataclass_in(hints[key])
        if inner is not None and isinstance(item, list):
            for i, element in enumerate(item):
                _check_keys(inner, element, origin, f"{prefix}{key}[{i}].")
        elif inner is not None and typing.get_origin(hints[key]) is dict and isinstance(item, dict):
            for name, element in item.items():
                _check_keys(inner, element, origin, f"{prefix}{key}.{name}.")
        elif inner is not None:
            if item is not None and not isinstance(item, dict | str):
                raise ConfigError(f"{origin}: {prefix}{key}: expected keys below it, found {item!r}.")
            _check_keys(inner, item, origin, f"{prefix}{key}.")
        elif _is_text(hints[key]) and isinstance(item, bool | int | float):
            raise ConfigError(
                f"{origin}: {prefix}{key} is text, but YAML reads {item!r} as a {type(item).__name__}.",
                "Put it in quotes.",
            )
        elif list[str] in (hints[key], *typing.get_args(hints[key])) and isinstance(item, list):
            for i, element in enumerate(item):
                if isinstance(element, bool | float):  # a whole number is its text already
                    raise ConfigError(
                        f"{origin}: {prefix}{key}[{i}] is text, but YAML reads {element!r} as a "
                        f"{type(element).__name__}.",
                        "Put it in quotes.",
                    )


def _long_form(schema: type, value: Any) -> Any:
    """Numbers in place of a dataclass that has a `from_number`, as the keys that they stand for."""
    if not isinstance(value, dict):
        return value
    hints = typing.get_type_hints(schema)
    long = dict(value)
    for key, item in value.items():
        hint = hints.get(key)
        if not dataclasses.is_dataclass(hint):
            continue
        from_number = getattr(hint, "from_number", None)
        is_number = isinstance(item, int) and not isinstance(item, bool)
        long[key] = (
            from_number(item) if from_number and is_number else _long_form(typing.cast(type, hint), item)
        )
    return long


def _elsewhere(schema: type, key: str, hints: dict[str, Any]) -> str:
    """Where in the tree a key of that name lives, else what is possible here."""
    places = [k.name for k in describe(schema) if k.name.split(".")[-1] == key]
    if places:
        return f"Did you mean {' or '.join(places[:3])}?"
    return f"Possible here: {', '.join(hints)}."


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass in `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint)
    if typing.get_origin(hint) in (list, dict, typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            if (found := _dataclass_in(argument)) is not None:
                return found
    return None


def _hint_of(schema: type, dotted: str) -> Any:
    """The type of a dotted key such as data.sources[0].uri; None for a key that the schema lacks."""
    hint: Any = schema
    for part in dotted.replace("]", "").replace("[", ".").split("."):
        if part.isdigit():
            continue
        inner = _dataclass_in(hint)
        hint = typing.get_type_hints(inner).get(part) if inner is not None else None
    return hint


def _is_text(hint: Any) -> bool:
    return hint is str or set(typing.get_args(hint)) == {str, type(None)}


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(m.name for m in hint)
    if typing.get_origin(hint) is typing.Union:
        return " | ".join("None" if h is type(None) else _type_name(h) for h in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{prefix}[{i}]")
    else:
        yield prefix, value


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


def _closest_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    names = [p.name for p in folder.glob("*.yaml")]
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"Did you mean {folder / close[0]}?"
    return f"Job files in {folder}: {', '.join(sorted(names)) or 'none'}."
