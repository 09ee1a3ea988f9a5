"""What `poma doctor` says."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.IntEnum):
    """How much it matters."""

    ok = 0
    warn = 1
    bad = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was examined."""

    check: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""

    def text(self) -> str:
        """For the terminal."""
        lines = [f"{self.level.name:5} {self.check:10} {self.what}"]
        lines += [f"{'':17}why: {self.why}"] if self.why else []
        lines += [f"{'':17}fix: {self.fix}"] if self.fix else []
        return "\n".join(lines)
