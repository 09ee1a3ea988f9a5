"""What mistyped words of a command line may have been meant for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from plinth.schema import describe

SHOWN = 3
"""Keys that are named at most."""


def as_key(flag: str, words: Sequence[str], schema: type | None) -> str:
    """What a flag that is none may have been meant for: keys of a job are words without dashes.

    Args:
        words: of the command line.
        schema: of the job that the command takes; None: it takes none.
    """
    name, _, value = flag.lstrip("-").partition("=")
    after = words[words.index(flag) + 1 :] if flag in words else []
    value = value or (after[0] if after and "=" not in after[0] else "VALUE")
    ends = name.replace("-", "_")
    keys = describe(schema) if schema else []
    parts = [key.name.split(".") for key in keys]  # sections count: fit.workers is one
    found = [".".join(of[: of.index(ends) + 1]) for of in parts if ends in of]
    meant = list(dict.fromkeys(found))
    if not meant:
        return f"there is no flag {flag}. Keys of a job are words without dashes: key=value."
    return f"there is no flag {flag}. Did you mean {' or '.join(f'{key}={value}' for key in meant[:SHOWN])}?"


def command(words: Sequence[str], names: Sequence[str]) -> str | None:
    """What a mistyped command is told; None where the words begin with none or a right one.

    Args:
        names: of the commands that there are.
    """
    if not words or words[0].startswith("-") or words[0] in names:
        return None
    close = difflib.get_close_matches(words[0], names, n=1)
    return f"poma: there is no command {words[0]!r}. " + (
        f"Did you mean {close[0]}?" if close else f"There are: {', '.join(names)}."
    )
