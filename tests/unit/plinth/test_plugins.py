"""Classes of the user's own: found by name, their options compared with their own dataclass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plinth import plugins
from plinth.errors import ConfigError
from plinth.schema import Key

MODULE = '''
from dataclasses import dataclass

@dataclass
class ScanConfig:
    root: str
    """The folder."""
    step: int = 2
    """Every n-th frame."""

class Scans:
    Config = ScanConfig
    def __init__(self, config):
        if config.step < 1:
            raise ValueError(f"step is {config.step}, expected 1 or more.")
        self.config = config
    def read(self): ...

class NoRead:
    Config = ScanConfig

class NoConfig:
    def read(self): ...
'''


@dataclass
class Section:
    """A section that takes an own class."""

    KINDS = ("rooms", "scannet")
    OWN_METHODS = ("read",)

    kind: str = "rooms"
    """Which."""
    options: dict[str, Any] | None = None
    """Of an own class."""


@dataclass
class Job:
    """A job with such a section."""

    reader: Section = field(default_factory=Section)
    """Reads."""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module in the folder where the command is started, which is not on Python's path."""
    (tmp_path / "own_scans.py").write_text(MODULE)
    (tmp_path / "broken_scans.py").write_text("import no_such_package")
    (tmp_path / "failing_scans.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_scans"
    for name in ("own_scans", "broken_scans", "failing_scans"):
        sys.modules.pop(name, None)


def test_options_become_the_config_of_the_class(module: str) -> None:
    job = Job(Section(f"{module}:Scans", {"root": "/data"}))
    plugins.complete(job)
    assert job.reader.options == {"root": "/data", "step": 2}, "defaults are part of the identity"
    made = plugins.make(job.reader, "reader")
    assert (made.config.root, made.config.step) == ("/data", 2)
    assert plugins.identity(job.reader, "reader") == {
        "kind": "own_scans:Scans",
        "options": {"root": "/data", "step": 2},
    }
    assert plugins.identity(Section(), "reader") == {}


def test_help_lists_the_keys_of_the_class(module: str) -> None:
    [root, step] = plugins.own_keys({"reader": {"kind": f"{module}:Scans"}, "output": "out"})
    assert root == Key("reader.options.root", "str", "(required)", "The folder.")
    assert step == Key("reader.options.step", "int", 2, "Every n-th frame.")


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "own_scans:Scans",
            {"rot": "x"},
            "unknown key reader.options.rot. Did you mean reader.options.ro",
        ),
        (
            "own_scans:Scans",
            {"root": "x", "step": "two"},
            "reader.options.step is 'two', expected a whole number",
        ),
        (
            "own_scans:Scans",
            {"root": "${oc.env:HOME}"},
            "reader.options.root reads what is outside",
        ),
        ("own_scans:Scans", {}, "no value for reader.options.root. Add it to the file or as reader.options."),
        ("own_scans:Scan", {}, "own_scans has no class 'Scan'. Did you mean own_scans:Scans?"),
        ("own_scans:NoRead", {}, "NoRead has no read."),
        ("own_scans:NoConfig", {}, "NoConfig has no Config. Set Config in the class to a dataclass."),
        ("own_scams:Scans", {}, "there is no module own_scams. Install it, put its folder on PYTHONPATH"),
        ("broken_scans:Scans", {}, "broken_scans imports no_such_package, which is missing."),
        ("failing_scans:Scans", {}, "importing failing_scans fails (ZeroDivisionError: division by zero)"),
        ("scanet", None, "reader.kind is 'scanet'. Did you mean scannet?"),
        ("xyz", None, "One of rooms, scannet, or module:Class."),
        ("rooms", {"root": "x"}, "reader.options is for a class of your own, and reader.kind is rooms."),
    ],
)
def test_what_cannot_be_used_is_named(
    kind: str, options: dict[str, Any] | None, words: str, module: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plugins.complete(Job(Section(kind, options)))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_value_that_the_constructor_refuses(module: str) -> None:
    with pytest.raises(ConfigError, match="reader own_scans:Scans: step is 0, expected 1 or more"):
        plugins.make(Section(f"{module}:Scans", {"root": "x", "step": 0}), "reader")
