"""Ranks that hang are ended by the coordinator, those of a group that ends anyway are not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plinth.launch import coordinator
from plinth.launch.coordinator import Coordinator
from plinth.launch.pulse import Pulse
from plinth.launch.watch import LOOK_EVERY_S
from plinth.storage import Storage

SILENT_S = 0.2
PULSE = Pulse(1, "vm", "node", 7, 1, "takes step", 3, 0.5, None, "loop.py:9 in step", False)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Pulse]:
    """The pulses whose processes are killed; none is."""
    found: list[Pulse] = []
    monkeypatch.setattr(coordinator, "end_process", found.append)
    return found


def until(is_true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:
        time.sleep(0.05)
    return is_true()


def test_a_silent_rank_is_ended_once_and_kept(tmp_path: Path, ended: list[Pulse]) -> None:
    storage = Storage.from_uri(tmp_path)
    group = Coordinator(0.0, storage, SILENT_S)
    group.register(1, 2)
    group.heard(PULSE)
    assert until(lambda: bool(ended))
    time.sleep(2 * LOOK_EVERY_S)
    assert ended == [PULSE]
    ((key, _),) = storage.list()
    assert json.loads(storage.read(key))["1"].startswith("gave no sign of life for ")


@pytest.mark.parametrize("ends", ["clear_group", "wait_for_shutdown", "forget"])
def test_who_may_end_is_not_ended(ends: str, tmp_path: Path, ended: list[Pulse]) -> None:
    storage = Storage.from_uri(tmp_path)
    group = Coordinator(0.0, storage, SILENT_S)
    group.register(1, 2)
    group.heard(PULSE)
    if ends == "clear_group":
        group.clear_group()
        group.heard(PULSE)  # on its way when Ray began to end the group
    else:
        getattr(group, ends)(1)
    time.sleep(2 * LOOK_EVERY_S + SILENT_S)
    assert not ended
    assert not storage.list()
