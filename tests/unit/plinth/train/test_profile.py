"""What is read out of a trace."""

from __future__ import annotations

from typing import Any

from plinth.train.profile import MEMORY_TRACK, host_waits, memory_timeline, memory_track, thinned


def memory(ts: float, size: int, device: int = 0) -> dict[str, Any]:
    arguments = {"Total Allocated": size, "Device Type": device}
    return {"name": "[memory]", "ph": "i", "pid": 7, "ts": ts, "args": arguments}


EVENTS = [memory(3.0, 30), memory(1.0, 10), memory(2.0, 99, device=1), {"name": "aten::mm", "ph": "X"}]


def test_the_timeline_is_of_one_device_and_in_order() -> None:
    assert memory_timeline(EVENTS, "cpu") == [(1.0, 10), (3.0, 30)]
    assert memory_timeline(EVENTS, "cuda") == [(2.0, 99)]


def test_the_track_is_what_perfetto_draws_as_a_curve() -> None:
    track = memory_track(EVENTS, [(1.0, 10)])
    assert track == [{"ph": "C", "name": MEMORY_TRACK, "pid": 7, "ts": 1.0, "args": {"bytes": 10}}]


def test_a_thinner_timeline_keeps_the_peak() -> None:
    points = thinned([(1000.0 * i, 500 if i == 17 else i) for i in range(100)], most=10)
    assert len(points) == 10
    assert [17.0, 500] in points
    assert thinned([], most=10) == []


def test_waits_of_the_host_are_counted() -> None:
    calls = [{"name": "cudaStreamSynchronize"}] * 3 + [{"name": "cudaLaunchKernel"}]
    assert host_waits(calls) == {"cudaStreamSynchronize": 3}
    assert host_waits(EVENTS) == {}
