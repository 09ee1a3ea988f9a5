"""Something done every few seconds, in a thread beside the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

QUIET_HEARTBEATS = 6
"""Heartbeats that a process may miss before it counts as dead."""

log = logging.getLogger(__name__)


class Every:
    """Calls `act` every `seconds`, from now until `close`, as a context.

    An error is logged, and `act` is called again as usual. While the error lasts it is not logged again.

    Args:
        failure: what the log says when `act` fails, such as "the ledger cannot be written".
        at_start: also call it at once.
        at_end: also call it once more when closed.
    """

    def __init__(
        self,
        seconds: float,
        act: Callable[[], object],
        failure: str,
        at_start: bool = False,
        at_end: bool = False,
    ) -> None:
        self._seconds, self._act, self._failure = seconds, act, failure
        self._at_start, self._at_end = at_start, at_end
        self._woken, self._closed = threading.Event(), threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="plinth-every", daemon=True)
        self._thread.start()

    def __enter__(self) -> Every:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def soon(self) -> None:
        """Call it now rather than after the wait."""
        self._woken.set()

    def stop(self) -> None:
        """Call it no more; returns at once, so `act` itself may say so."""
        self._closed.set()
        self._woken.set()

    def close(self, timeout_s: float | None = None) -> None:
        """Stop, and wait for the call that is under way."""
        self.stop()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        if not self._at_start:
            self._woken.wait(self._seconds)
        is_last = False
        while not is_last:
            self._woken.clear()
            is_last = self._closed.is_set()  # read before the call: the last one comes after the end
            if not is_last or self._at_end:
                self._call()
            if not is_last:
                self._woken.wait(self._seconds)

    def _call(self) -> None:
        try:
            self._act()
            self._is_failing = False
        except Exception as error:
            if not self._is_failing:
                log.warning("%s, trying again every %g s: %s", self._failure, self._seconds, error)
            self._is_failing = True
