"""What is told to Prometheus, seen on stand-ins of Ray's metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plinth.observe import telemetry
from plinth.observe.metrics import StepRecord
from plinth.observe.telemetry import COUNTER, METRICS, Telemetry, exported_name

STEP = StepRecord(
    step=4, epoch=1, step_in_epoch=0, loss=2.0, terms={"view_text": 1.5, "jepa": 0.5}, logs={}, grad_norm=3.0,
    lr=1e-4, digest="", world_size=2, samples=48, step_s=0.5, data_wait_s=0.1, checkpoint_s=0.0,
    memory_bytes=1 << 20, time=0.0,
)  # fmt: skip


class Recorder:
    """Keeps what one metric was told, as Ray's would: a counter refuses 0, tags must be those declared."""

    def __init__(self, name: str, told: list[tuple[str, float, dict[str, str]]]) -> None:
        self.name, self.told = name, told

    def _keep(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(METRICS[self.name].tags)
        assert all(isinstance(tag, str) for tag in tags.values())
        self.told.append((self.name, value, tags))

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert METRICS[self.name].kind != COUNTER
        self._keep(value, tags)

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert METRICS[self.name].kind == COUNTER
        assert value > 0
        self._keep(value, tags)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, dict[str, str]]]:
    kept: list[tuple[str, float, dict[str, str]]] = []

    def declare() -> dict[str, Any]:
        return {name: Recorder(name, kept) for name in METRICS}

    monkeypatch.setattr(telemetry, "_in_ray", lambda: True)
    monkeypatch.setattr(telemetry, "_declare", declare)
    return kept


def test_rank_0_tells_everything(told: list[Any]) -> None:
    Telemetry("run", "main", 0).record(replace(STEP, checkpoint_s=1.5))
    values = {name: value for name, value, _ in told}
    assert set(values) == set(METRICS)
    assert values["plinth_step"] == 5, "steps done"
    assert values["plinth_checkpoint_seconds"] == 1.5
    terms = {tags["term"]: value for name, value, tags in told if name == "plinth_loss_term"}
    assert terms == STEP.terms


def test_other_ranks_tell_only_what_differs(told: list[Any]) -> None:
    Telemetry("run", "main", 3).record(STEP)
    assert {name for name, _, _ in told} == {
        "plinth_step_seconds", "plinth_data_wait_seconds", "plinth_compute_seconds", "plinth_memory_bytes",
    }  # fmt: skip
    assert {tags["rank"] for _, _, tags in told} == {"3"}


def test_ledger_of_step_without_checkpoint(told: list[Any]) -> None:
    Telemetry("run", "warmup", 0).record(STEP)
    assert "plinth_checkpoint_seconds" not in {name for name, _, _ in told}
    assert {tags["stage"] for _, _, tags in told} == {"warmup"}


def test_short_steps_are_told_together(told: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock[0])
    telling = Telemetry("run", "main", 0)
    for number in range(4):
        telling.record(replace(STEP, step=number, checkpoint_s=0.5))
    assert [value for name, value, _ in told if name == "plinth_step"] == [1], "the first at once"
    clock[0] += telemetry.EVERY_S
    telling.record(replace(STEP, step=4, checkpoint_s=0.5))
    telling.record(replace(STEP, step=5))
    telling.close()
    telling.close()
    values = {
        kind: [value for name, value, _ in told if name == kind]
        for kind in ("plinth_step", "plinth_samples", "plinth_checkpoint_seconds")
    }
    assert values == {
        "plinth_step": [1, 5, 6],
        "plinth_samples": [48, 4 * 48, 48],
        "plinth_checkpoint_seconds": [0.5, 2.0],
    }


def test_names_in_prometheus() -> None:
    assert exported_name("plinth_loss") == "ray_plinth_loss"
    assert exported_name("plinth_samples") == "ray_plinth_samples_total"
