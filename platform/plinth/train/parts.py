"""Where a step's time goes: seconds by part, each without the parts inside it.

On a CPU the backward pass and its hooks run in the thread that called it, so a stack of clocks is enough. On
a GPU those hooks run in another thread, which is left alone: what they do counts as the backward pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch.distributed as dist
from torch.profiler import record_function

from plinth.engine import engine as engine_module
from plinth.engine.engine import Engine

REST = "rest"


class Parts:
    """Exclusive seconds by name, of the thread that made this.

    Args:
        wait: called before the clock is read: on a GPU, to wait until it is done with what was asked of it.
    """

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        self.wait = wait
        self.is_labelled = False
        """Whether parts are also written into a trace of `torch.profiler`."""
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0
        self._whole = False
        self._thread = threading.get_ident()

    @contextmanager
    def part(self, name: str, whole: bool = False) -> Iterator[None]:
        """What runs in here is `name`, but for parts inside it; with `whole` they are `name`, too."""
        if self._whole or threading.get_ident() != self._thread:
            yield
            return
        self._switch()
        self._open.append(name)
        self._whole = whole
        try:
            if self.is_labelled:
                with record_function(name):
                    yield
            else:
                yield
        finally:
            self._whole = False
            self._switch()
            self._open.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a part."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return timed

    def take(self, steps: int) -> dict[str, float]:
        """Milliseconds a step since the last call."""
        taken = {name: 1000 * seconds / steps for name, seconds in self._seconds.items()}
        self._seconds = {}
        return taken

    def _switch(self) -> None:
        if self.wait is not None:
            self.wait()
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


@contextmanager
def watch_engine(engine: Engine, parts: Parts) -> Iterator[None]:
    """Time the parts of the engine's steps in here."""
    deepspeed, optimizer = engine._deepspeed, engine._deepspeed.optimizer
    adam = optimizer.optimizer if hasattr(optimizer, "optimizer") else optimizer
    watched: list[tuple[Any, str, str]] = [
        (engine, "step", REST),
        (engine, "_encode", "forward"),
        (engine, "_contrast", "contrast"),
        (engine, "_result", "metrics"),
        (engine, "_exchange", "metrics"),
        (engine.stage, "prepare", "draws"),
        (engine._gradients, "backward", "backward"),
        (engine._gradients, "_add", "adding up"),
        (engine._gradients, "squares", "reduction and norm"),
        (deepspeed, "step", "clip and step"),
        (adam, "step", "optimizer"),
        (engine.ema, "update", "EMA"),
        (engine_module.global_batch, "gather", "gather"),
    ]
    for name in ("all_reduce", "all_gather_into_tensor", "all_gather_object"):
        watched.append((dist, name, "waiting in collectives"))
    with ExitStack() as patched:
        for owner, name, part in watched:
            if hasattr(owner, name):
                timed = parts.wrap(part, getattr(owner, name))
                patched.enter_context(mock.patch.object(owner, name, timed))
        if engine.sums:
            rounding = parts.wrap("exact sums", engine.sums.rounded)
            patched.enter_context(mock.patch.object(engine.sums, "rounded", rounding))
            patched.enter_context(
                mock.patch.object(engine.sums, "settle", parts.wrap("exact sums", engine.sums.settle))
            )
        yield
