"""`poma lift` in a process of its own that kills itself at a chosen moment.

python -m tests.helpers.lift.main JOB.yaml [MODULE NAME CALL]

SIGKILL comes instead of the CALL-th call of MODULE.NAME, so at an exact place and without any clean-up.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.errors import EXIT_CODE, PlinthError


def main() -> int:
    """Exit code as of `poma`."""
    path, *kill = sys.argv[1:]
    if kill:
        _arm(*kill)
    try:
        return lift.run_job(config.load(LiftJob, Path(path)))
    except PlinthError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CODE


def _arm(module: str, name: str, call: str) -> None:
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), itertools.count(1)

    def killing(*arguments: Any, **named: Any) -> Any:
        if next(calls) == int(call):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, last, killing)


if __name__ == "__main__":
    sys.exit(main())
