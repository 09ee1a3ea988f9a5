"""Classes of the user's own in a job file: `reader.kind: my_package.my_module:MyReader`.

A section of a job that takes one is a dataclass with the fields `kind` (a built-in kind, or module:Class) and
`options`, and two plain class attributes: KINDS, the built-in kinds, and OWN_METHODS, which an own class must
have. The class brings its settings as a dataclass `Config`; `options` is compared with it as strictly as any
other section:

    class MyReader:
        Config = MyConfig                                   # a dataclass, a docstring under each field
        def __init__(self, config: MyConfig) -> None: ...

Modules are found where Python finds them, and in the folder where the command is started. Ray's workers find
them in the same places.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from plinth import config
from plinth.errors import ConfigError
from plinth.locations import absolute
from plinth.schema import Key, describe


def is_own(kind: str) -> bool:
    """Whether a kind names a class, as module:Class."""
    return ":" in kind


def complete(job: Any) -> None:
    """Check every section of a job that takes an own class; complete its options, with absolute paths.

    Raises:
        ConfigError: an unknown kind, a class that cannot be used, or options that it does not have.
    """
    for key, section in _sections(job):
        if is_own(section.kind):
            section.options = config.to_dict(absolute(_open(section, key)[1]))
            continue
        kinds = section.KINDS
        if section.kind not in kinds:
            close = difflib.get_close_matches(section.kind, kinds, n=1)
            fix = f"Did you mean {close[0]}?" if close else f"One of {', '.join(kinds)}, or module:Class."
            raise ConfigError(f"{key}.kind is {section.kind!r}.", fix)
        if section.options:
            raise ConfigError(
                f"{key}.options is for a class of your own, and {key}.kind is {section.kind}.",
                "Leave it out, or name the class in kind as module:Class.",
            )


def make(section: Any, key: str, *arguments: Any) -> Any:
    """An object of the class that a section names: `Class(its config, *arguments)`.

    Args:
        section: whose kind is a class.
        key: of the section in the job, to name in errors.

    Raises:
        ConfigError: the class or its options cannot be used, or its constructor raises ValueError.
    """
    cls, settings = _open(section, key)
    try:
        return cls(settings, *arguments)
    except ValueError as error:
        raise ConfigError(f"{key} {section.kind}: {str(error).rstrip('.')}.") from None


def identity(section: Any, key: str) -> dict[str, Any]:
    """What an own class adds to the identity of what is made with it; nothing for a built-in kind."""
    if not is_own(section.kind):
        return {}
    return {"kind": section.kind, "options": config.to_dict(_open(section, key)[1])}


def open_class(kind: str, key: str, methods: Sequence[str] = ()) -> type[Any]:
    """The class that a kind names.

    Args:
        key: of the section in the job, to name in errors.
        methods: that it must have.

    Raises:
        ConfigError: no such module or class, a module that cannot be imported, or a class without its parts.
    """
    module_name, _, name = kind.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    where = f"{key}.kind is {kind}, but"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where} {module_name} imports {error.name}, which is missing.") from None
        raise ConfigError(
            f"{where} there is no module {error.name}.",
            "Install it, put its folder on PYTHONPATH, or start the command in its folder.",
        ) from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ConfigError(f"{where} importing {module_name} fails ({reason}).") from None
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        classes = [known for known, value in vars(module).items() if isinstance(value, type)]
        close = difflib.get_close_matches(name, classes, n=1)
        fix = f"Did you mean {module_name}:{close[0]}?" if close else "Name it as module:Class."
        raise ConfigError(f"{where} {module_name} has no class {name!r}.", fix)
    if missing := [method for method in methods if not callable(getattr(cls, method, None))]:
        raise ConfigError(f"{where} {name} has no {' and no '.join(missing)}.", "Add what is missing.")
    if not dataclasses.is_dataclass(getattr(cls, "Config", None)):
        raise ConfigError(f"{where} {name} has no Config.", "Set Config in the class to a dataclass.")
    return cls


def own_keys(raw: Any, key: str = "") -> Iterator[Key]:
    """The options of every own class that a job file (nested dicts) names, with their help text."""
    if isinstance(raw, dict):
        kind = raw.get("kind")
        if isinstance(kind, str) and is_own(kind):
            yield from describe(open_class(kind, key).Config, f"{key}.options.")
        for name, value in raw.items():
            yield from own_keys(value, f"{key}.{name}" if key else str(name))


def _open(section: Any, key: str) -> tuple[type[Any], Any]:
    """The class of a section, and its options as its `Config`."""
    cls = open_class(section.kind, key, section.OWN_METHODS)
    return cls, config.build(cls.Config, [(section.kind, section.options or {})], f"{key}.options.")


def _sections(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Sections below a config that take an own class, with their dotted keys."""
    if hasattr(type(value), "OWN_METHODS"):
        yield key, value
    if dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from _sections(getattr(value, each.name), f"{key}.{each.name}" if key else each.name)
