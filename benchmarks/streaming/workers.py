"""Consumers as processes that wait for "go": so rounds of different paths can take turns, and starting Python
and importing libraries is in no measurement.

One line of JSON asks, one line of JSON answers. Used on both sides, also in the environment of the peers:
standard library only.

    {"do": "epoch"}                          -> {"first_s": ..., "batches": ...}
    {"do": "rest"}                           -> {}                              throw away what was read ahead
    {"do": "part", "batches": k, "state": s} -> {"ids": [...], "state": ...}    at most k batches, from s on
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[2]
READY = "ready"
STOP_TIMEOUT_S = 20.0
LOG_CHARACTERS = 3000


class Consumer(Protocol):
    """One consumer of a path, in its own process. Its constructor does what is done once before training."""

    def batches(self) -> Iterator[Any]:
        """Its share of an epoch, or what is left of it after `load`."""

    def rest(self) -> None:
        """Throw away what was read ahead of the epoch's end: nobody reads while others are measured."""

    def ids(self, batch: Any) -> list[str]:
        """The samples of a batch; those that fill it up and are marked as such left out."""

    def state(self) -> Any:
        """What its checkpoint keeps in mid-epoch, as JSON; None where there is no such thing."""

    def load(self, state: Any) -> None:
        """Go on from a state."""


class WorkerError(RuntimeError):
    """A consumer ended or failed; the message has the end of its log."""


def serve(opener: Callable[[dict[str, Any]], Callable[[], Consumer]]) -> None:
    """Be a consumer process: `opener` imports what `json.loads(argv[1])` asks for; each answer is one line.

    What it returns makes the consumer, at the first "go".
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    make = opener(json.loads(sys.argv[1]))
    print(READY, file=answers, flush=True)
    consumer: Consumer | None = None
    for line in sys.stdin:
        started = time.perf_counter()
        consumer = consumer or make()
        print(json.dumps(answer(consumer, json.loads(line), started)), file=answers, flush=True)


def answer(consumer: Consumer, asked: Mapping[str, Any], started: float) -> dict[str, Any]:
    """Do what is asked for; the first batch counts from `started`, a time of `time.perf_counter`."""
    if asked["do"] == "part":
        return _part(consumer, asked)
    if asked["do"] == "rest":
        consumer.rest()
        return {}
    first_s, count = 0.0, 0
    for _ in consumer.batches():
        first_s = first_s or time.perf_counter() - started
        count += 1
    return {"first_s": first_s, "batches": count}


def _part(consumer: Consumer, asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked["state"] is not None:
        consumer.load(asked["state"])
    ids: list[str] = []
    for batch in islice(consumer.batches(), asked["batches"]):
        ids += consumer.ids(batch)
    return {"ids": ids, "state": consumer.state()}


class Group:
    """The consumers of one path: `count` processes, each of which takes its share. Use it in a `with`.

    `benchmarks.streaming.actors` has the same for consumers that use Ray.
    """

    def __init__(self, command: Sequence[str], config: Mapping[str, Any], count: int) -> None:
        port = _free_port()
        self._logs = [tempfile.TemporaryFile("w+") for _ in range(count)]  # noqa: SIM115  closed by close()
        self._processes = [
            subprocess.Popen(
                [*command, json.dumps({**config, "rank": rank, "consumers": count})],
                cwd=ROOT, env=_environment(rank, count, port), text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )
            for rank, log in enumerate(self._logs)
        ]  # fmt: skip

    def wait_until_ready(self) -> None:
        """Until all have imported what they need."""
        for index in range(len(self._processes)):
            self._line(index)

    def ask(self, **question: Any) -> list[dict[str, Any]]:
        """Tell all of them at once; their answers when the last one has it."""
        for process in self._processes:
            assert process.stdin is not None
            print(json.dumps(question), file=process.stdin, flush=True)
        return [json.loads(self._line(index)) for index in range(len(self._processes))]

    def close(self) -> None:
        """End the processes and theirs."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process, log in zip(self._processes, self._logs, strict=True):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, index: int) -> str:
        output = self._processes[index].stdout
        assert output is not None
        if line := output.readline():
            return line
        self._processes[index].wait()
        self._logs[index].seek(0)
        raise WorkerError(f"consumer {index} ended:\n{self._logs[index].read()[-LOG_CHARACTERS:]}")


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """As torchrun would set it: the peers find their share by it."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform"), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ, "PYTHONPATH": path.strip(os.pathsep), "PYTHONWARNINGS": "ignore",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0",
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
