"""A rank's sign of life: who it is, what it does, since when, and where in its code it is.

It is sent from a thread, so it comes while the rank computes or waits, and stops when its process is stopped.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

COLLECTIVES = ("torch.distributed.distributed_c10d", "deepspeed.comm", "deepspeed.runtime.zero")
"""Modules in which a rank waits for the others. ZeRO waits for collectives that it has begun before."""
OWN = "plinth"
STACK_FRAMES = 20


@dataclass(frozen=True)
class Pulse:
    """One sign of life."""

    rank: int
    host: str
    node: str
    """Ray's id of the node."""
    pid: int
    born: int
    """`born_at(pid)`."""
    doing: str
    step: int | None
    for_s: float
    """How long it has been doing that."""
    limit_s: float | None
    """How long that may take; None: as long as it likes."""
    where: str
    """The line of this package that it is in, as `file:line in function`."""
    is_in_collective: bool
    """Whether it waits for the other ranks."""
    stack: str = ""
    """The innermost frames, once the limit is over."""


class Sender:
    """Makes the pulses of this rank. Make it in the thread that trains."""

    def __init__(self, rank: int, node: str) -> None:
        self._rank, self._node, self._host = rank, node, socket.gethostname()
        self._thread = threading.get_ident()
        self._born = born_at(os.getpid()) or 0
        self._now: tuple[str, int | None, float | None, float] = ("starts", None, None, time.monotonic())

    def enters(self, doing: str, step: int | None, limit_s: float | None) -> None:
        """What this rank does from now on; see `Pulse`."""
        self._now = (doing, step, limit_s, time.monotonic())

    def pulse(self) -> Pulse:
        """The pulse of this moment."""
        doing, step, limit_s, since = self._now
        for_s = time.monotonic() - since
        frames = _frames(sys._current_frames().get(self._thread))
        stack = ""
        if limit_s is not None and for_s > limit_s and frames:
            stack = "".join(traceback.format_stack(frames[0])[-STACK_FRAMES:])
        return Pulse(
            self._rank, self._host, self._node, os.getpid(), self._born, doing, step, for_s, limit_s,
            _place(frames), any(_module(frame).startswith(COLLECTIVES) for frame in frames), stack,
        )  # fmt: skip


def born_at(pid: int) -> int | None:
    """When a process of this machine started, in the kernel's clock ticks; None if there is none. With it a
    process is told from a later one of the same id."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return None
    return int(after_name.split()[19])  # proc(5): field 22; these begin with the third


def _frames(innermost: FrameType | None) -> list[FrameType]:
    frames = []
    while innermost is not None:
        frames.append(innermost)
        innermost = innermost.f_back
    return frames


def _place(frames: list[FrameType]) -> str:
    """The innermost line of this package; of whatever there is, without one."""
    own = [frame for frame in frames if _module(frame).partition(".")[0] == OWN] or frames
    if not own:
        return ""
    code = own[0].f_code
    return f"{Path(code.co_filename).name}:{own[0].f_lineno} in {code.co_name}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
