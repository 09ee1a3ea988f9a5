"""How far a loop is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

FIRST_S = 20.0
"""Until the first line of a log: what ends before has one line."""
LONGEST_S = 60.0
"""Between two lines of a log."""


class Progress:
    """Counts units: a bar with rate and time left on a terminal, else a line at intervals that double up to a
    minute, and one at the end."""

    def __init__(self, label: str, unit: str, total: int, every_s: float = FIRST_S) -> None:
        self.label, self.unit, self.total, self.every_s = label, unit, total, every_s
        self.done = 0
        self.start = self.last = time.monotonic()
        self.bar = _bar(label, unit, total) if sys.stdout.isatty() else None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more and show it when it is time or all is done.

        Args:
            note: shown beside the count.
        """
        self.done += n
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(n)
            if self.done >= self.total:
                self.bar.close()
            return
        now = time.monotonic()
        if now - self.last < self.every_s and self.done < self.total:
            return
        self.last, self.every_s = now, max(self.every_s, min(2 * self.every_s, LONGEST_S))
        spent_s = max(now - self.start, 1e-9)
        left_s = (self.total - self.done) * spent_s / self.done
        state = f"done in {spent_s:.0f} s" if self.done >= self.total else f"{left_s:.0f} s left"
        shown = ", ".join(filter(None, (f"{self.done}/{self.total} {self.unit}", note, state)))
        print(f"{self.label}: {shown}", flush=True)


def _bar(label: str, unit: str, total: int) -> Any:
    from tqdm import tqdm  # not at the top: job files load this module and show nothing

    return tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True, file=sys.stdout)
