"""Strict job files: YAML -> typed dataclasses, with dotted overrides.

A job's schema is a tree of dataclasses whose fields each have a docstring underneath: the help text.
An unknown key, a wrong type or a missing value stops before anything starts, with the key, a
suggestion and what would be right. A value may refer to another key of the job (`${folder}/runs`) and to
nothing else, such as the environment: the resolved config is printed and saved, so secrets are named, not
copied.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar_parser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse as parse_text

from plinth.counts import too_small
from plinth.digests import json_digest
from plinth.errors import ConfigError, raise_together
from plinth.schema import MISSING, hint_of, is_text, long_form, problems, type_name
from plinth.yaml_text import quote_odd_integers

T = TypeVar("T")
_OPEN = "\N{LEFT-POINTING ANGLE BRACKET}open\N{RIGHT-POINTING ANGLE BRACKET}"
"""Stands for a value that is to be said while OmegaConf, which takes `???` for none, makes the config."""

REFERENCE = "${"
OF_THE_JOB = {"oc.select", "oc.dict.keys", "oc.dict.values"}
"""OmegaConf's functions in references that give values of the job itself. All others may read what is outside
(`oc.env`), or make references out of text that nobody has looked at (`oc.decode`, `oc.create`)."""


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

    def lay(text: str) -> None:
        below = [OmegaConf.structured(schema), *(layer for _, layer in layers)]
        layers.append(_whole_list(*_parsed(schema, text), below))

    raise_together(partial(lay, text) for text in overrides)
    return build(schema, layers)


def read(path: str | Path) -> DictConfig:
    """A YAML file, not yet compared with any schema.

    Raises:
        ConfigError: no such file, or not `key: value` lines.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder.", _job_files(path))
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
        raise ConfigError(f"{origin}: not valid YAML: {_yaml_reason(error)}") from None
    if not isinstance(raw, DictConfig):
        raise ConfigError(f"{origin}: expected `key: value` lines at the top, found a list.")
    return raw


def _yaml_reason(error: Exception) -> str:
    """Its message in one line; what it calls the text is no name that its user knows."""
    return " ".join(str(error).split()).replace(' in "<unicode string>",', " at")


def build(schema: type[T], layers: Sequence[tuple[str, Any]], prefix: str = "") -> T:
    """Merge `(origin, mapping)` layers onto the schema's defaults, the last one winning.

    Args:
        prefix: of the keys in errors, where the schema is a part of another one.
    """
    merged = OmegaConf.structured(schema)
    unsaid: set[str] = set()
    refused: list[ConfigError] = []
    for origin, layer in layers:
        plain = OmegaConf.to_container(layer) if isinstance(layer, DictConfig) else layer
        plain = long_form(schema, plain)
        _refuse_outside(plain, origin, prefix)
        unsaid = _unsaid(unsaid, plain)
        if found := list(problems(schema, plain, origin, prefix)):
            refused += found
            continue
        try:
            merged = OmegaConf.merge(merged, plain)
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None) or "a value"
            hint = hint_of(schema, key)
            wanted = type_name(hint) if hint is not None else ""
            reason = str(error).splitlines()[0]
            fix = f"Expected {wanted}." if wanted else ""
            refused.append(ConfigError(f"{origin}: {prefix}{key}: {reason}.", fix))
    if refused:
        raise_together([partial(_raise, error) for error in refused])
    file = layers[0][0] if layers else schema.__name__
    try:
        if missing := sorted(OmegaConf.missing_keys(merged) | unsaid):
            raise MissingValues(file, prefix, missing, _open_config(merged, missing))
        _refuse_leftover(OmegaConf.to_container(merged, resolve=True), file, prefix)
        return _checked(typing.cast(T, OmegaConf.to_object(merged)), file, prefix)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{file}: {prefix}{key}: {str(error).splitlines()[0]}.") from None


def _raise(error: ConfigError) -> None:
    raise error


class MissingValues(ConfigError):
    """Keys that are still to be said, and all that has been said.

    Args:
        file: names the job in the message.
        keys: those that are open, dotted.
        rest: the config with `???` as the value of each; None where an open key takes no text.
    """

    def __init__(self, file: str, prefix: str, keys: Sequence[str], rest: Any) -> None:
        self.keys, self.rest = [prefix + key for key in keys], rest
        super().__init__(
            f"{file}: no value for {', '.join(self.keys)}.",
            f"Add it to the file or as {self.keys[0]}=VALUE on the command line.",
        )

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return ConfigError, (self.problem, self.fix)


def _open_config(merged: Any, missing: Sequence[str]) -> Any:
    """The config with `???` where a value is missing, or None."""
    filled = copy.deepcopy(merged)
    try:
        for key in missing:
            OmegaConf.update(filled, key, _OPEN)
        return _reopened(OmegaConf.to_object(filled))
    except OmegaConfBaseException:
        return None  # a number, say, or another key's value that cannot be


def _reopened(value: Any) -> Any:
    """`???` again in place of what OmegaConf would not take for a missing value."""
    if isinstance(value, str):
        return value.replace(_OPEN, MISSING)
    if isinstance(value, list):
        return [_reopened(item) for item in value]
    if isinstance(value, dict):
        return {key: _reopened(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _reopened(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _unsaid(before: set[str], layer: Any, key: str = "") -> set[str]:
    """The keys that are still to be said, as `???`, once a layer is laid over what is `before`. OmegaConf's
    merge leaves the default in place of a `???`."""
    if layer == MISSING:
        return before | {key}
    if not isinstance(layer, dict):
        return {k for k in before if k != key and not k.startswith(f"{key}.")}
    for name, value in layer.items():
        before = _unsaid(before, value, f"{key}.{name}" if key else str(name))
    return before


def _checked(config: T, file: str, prefix: str) -> T:
    raise_together(
        partial(_raise, ConfigError(f"{file}: {key} is {value}, expected {least} or more."))
        for key, value, least in too_small(config, prefix)
    )
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config: JSON types only."""
    container = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
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


def _parsed(schema: type, text: str) -> tuple[str, dict[str, Any]]:
    """An override as a layer, and its name in errors.

    Raises:
        ConfigError: not key=value, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{text}': expected an override of the form key=value, such as optim.lr=3e-4.")
    try:
        layer = OmegaConf.from_dotlist([f"{key}={quote_odd_integers(value)}"])
        if is_text(hint_of(schema, key)) and value != "null" and value[:1] not in ("'", '"'):
            OmegaConf.update(layer, key, value)  # a revision such as 0123 is no number
        parsed = OmegaConf.to_container(layer)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"'{text}': the value is not valid YAML: {_yaml_reason(error)}") from None
    return f"'{text}'", typing.cast(dict[str, Any], parsed)


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


def _refuse_outside(value: Any, origin: str, prefix: str) -> None:
    """Refuse references to anything that is not a key of the job, however they are written, at any depth.

    They are found by OmegaConf's own grammar: a pattern of text would miss some of their spellings.
    """
    for key, text in _texts(value):
        try:
            asked = set(_functions(text)) - OF_THE_JOB
        except OmegaConfBaseException as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{origin}: {prefix}{key}: no valid reference: {reason}.") from None
        if asked:
            name = sorted(asked)[0]
            raise ConfigError(
                f"{origin}: {prefix}{key} reads what is outside of the job ({name}), but configs are saved.",
                "Refer to keys of the job only. Where a secret is needed, name its variable (fields that end "
                "in _env).",
            )


def _functions(text: str) -> Iterator[str]:
    """The functions that the references in a text call, by their names as they are written."""
    nodes: list[Any] = [parse_text(text)] if REFERENCE in text else []
    while nodes:
        node = nodes.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield node.resolverName().getText()
        nodes += node.getChildren() if hasattr(node, "getChildren") else []


def _refuse_leftover(resolved: Any, origin: str, prefix: str) -> None:
    """Refuse texts that look like references once all are resolved: whoever reads the saved job would take
    them for some."""
    for key, text in _texts(resolved):
        if REFERENCE in text:
            raise ConfigError(
                f"{origin}: {prefix}{key} holds {REFERENCE!r}, which reads as a reference.",
                "Use another name: there is no escape for it.",
            )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested dicts and lists, with its dotted key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _texts(item, f"{key}[{i}]")
    elif isinstance(value, str):
        yield key, value


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{prefix}[{i}]")
    else:
        yield prefix, value


def _closest_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    close = difflib.get_close_matches(path.name, [p.name for p in folder.glob("*.yaml")], n=1)
    return f"Did you mean {folder / close[0]}?" if close else _job_files(folder)


def _job_files(folder: Path) -> str:
    names = [p.name for p in folder.glob("*.yaml")]
    return f"Job files in {folder}: {', '.join(sorted(names)) or 'none'}."
