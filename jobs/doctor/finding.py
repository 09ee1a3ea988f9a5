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
        """For the terminal; why and how to fix it only where something is wrong."""
        lines = [f"{self.level.name:5} {self.check:10} {self.what}"]
        if self.level is not Level.ok:
            lines += [
                f"{'':17}{name}: {text}" for name, text in (("why", self.why), ("fix", self.fix)) if text
            ]
        return "\n".join(lines)
