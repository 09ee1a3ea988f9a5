"""Consumers that use Ray are actors of one job, as Ray Train's workers are: they share the tasks' workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray

from benchmarks.streaming.ours import open_config, opener, ray_data
from benchmarks.streaming.workers import Consumer, answer


class Actors:
    """As `workers.Group`."""

    def __init__(self, config: Mapping[str, Any], count: int) -> None:
        remote = ray.remote(num_cpus=0)(_Reader)
        splits = [None] * count
        if count > 1 and config["path"] == "plain Ray Data":
            splits = ray_data(open_config(config)).streaming_split(count)
        self._actors = [
            remote.remote({**config, "rank": rank, "consumers": count, "split": split})
            for rank, split in enumerate(splits)
        ]

    def wait_until_ready(self) -> None:
        """Until all have imported what they need."""
        ray.get([actor.wait_until_ready.remote() for actor in self._actors])

    def ask(self, **question: Any) -> list[dict[str, Any]]:
        """Tell all of them at once; their answers when the last one has it."""
        return list(ray.get([actor.answer.remote(question) for actor in self._actors]))

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def __enter__(self) -> Actors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader:
    def __init__(self, config: dict[str, Any]) -> None:
        self._make = opener(config)
        self._consumer: Consumer | None = None

    def wait_until_ready(self) -> None:
        import ray.data  # noqa: F401

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        self._consumer = self._consumer or self._make()
        return answer(self._consumer, question, started)
