"""What counts as a bad step, what is left out for it, and what collapse is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from plinth.data.plan import Cursor
from plinth.errors import ConfigError
from plinth.observe import incidents
from plinth.observe.config import GuardConfig
from plinth.observe.incidents import CollapseWatch, Incident
from plinth.storage import Storage
from plinth.storage.json_objects import DamagedObjectError

WATCH = GuardConfig(spike_sigmas=6.0, spike_window=20)


def test_is_spike() -> None:
    falling = [5 - 0.05 * i + 0.02 * math.sin(7 * i) for i in range(40)]
    assert not any(incidents.is_spike(WATCH, falling[:i], falling[i]) for i in range(40))
    assert incidents.is_spike(WATCH, falling, 9.0)
    assert not incidents.is_spike(WATCH, falling, 1.0), "a fall is no spike"
    assert not incidents.is_spike(WATCH, falling[:9], 9.0), "too few steps to compare with"
    assert not incidents.is_spike(GuardConfig(), falling, 1e9), "off unless asked for"
    assert not incidents.is_spike(WATCH, [2.0] * 30, 2.005), "flat losses make no small step a spike"


def test_incidents_say_what_is_left_out(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    sample = Incident("not finite", 3, 0, 3, False, ["a", "b"], [["a"], ["b"]], loss=math.nan)
    batch = Incident("spike", 3, 1, 7, True, ["c", "d"], [])
    keys = {incidents.write(storage, sample), incidents.write(storage, batch)}
    assert keys == {"incidents/step-00000003-0.json", "incidents/step-00000003-1.json"}
    read = incidents.read_all(storage)
    assert [i.sample_ids for i in read] == [["a", "b"], ["c", "d"]]
    assert read[0].loss is None, "JSON has no NaN"
    assert incidents.left_out(read) == (frozenset({"a", "b"}), frozenset({Cursor(1, 7)}))
    assert incidents.read_all(storage.child("other")) == []


@pytest.mark.parametrize("content", [b"", b'{"kind": "x", "st', b"[]", b'{"kind": "x"}'])
def test_a_damaged_incident_is_named(content: bytes, tmp_path: Path) -> None:
    """Leaving it out would train on what it left out."""
    storage = Storage.from_uri(tmp_path)
    storage.write("incidents/step-00000042-0.json", content)
    with pytest.raises(DamagedObjectError, match=r"incidents/step-00000042-0\.json is damaged .*delete it"):
        incidents.read_all(storage)


def test_collapse_is_said_once_when_it_lasts() -> None:
    watch = CollapseWatch(GuardConfig(floors={"std": 0.1}, collapse_patience=3))
    values = [0.5, 0.05, 0.05, 0.5, 0.05, 0.04, 0.03, 0.02]
    said = [watch.look({"std": value, "other": 0.0}) for value in values]
    assert [bool(s) for s in said] == [False] * 6 + [True, False]
    assert said[6] == ["std is 0.03, below its floor 0.1"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_rollbacks", -1), ("spike_sigmas", -1.0), ("spike_window", 1), ("collapse_patience", 0)],
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"guard\.{key} is {value}"):
        GuardConfig(**{key: value}).validate()
