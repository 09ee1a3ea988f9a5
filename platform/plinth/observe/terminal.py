"""What a process says on the terminal: this package's messages as plain lines, and those of libraries.

Of these, what nobody can act on is noise: it is dropped where it is logged, by its words, so that anything
else that the same logger says passes. Each has its reason beside it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plinth.ray_internals.core import TOKEN_LOGGER, Print, replace_printer
from plinth.ray_internals.train import REQUESTS_LOGGER
from plinth.redaction import RedactionFilter


@dataclass(frozen=True)
class Noise:
    """One such message."""

    logger: str
    """Name of its logger; empty for a line that a C++ process writes."""
    words: str
    """A pattern that it contains."""
    why: str
    """Why it is dropped."""


KNOWN = (
    Noise(
        TOKEN_LOGGER,
        r"Token authentication is enabled",
        "A cluster that is started here keeps strangers out: as it should be.",
    ),
    Noise(
        "DeepSpeed",
        r"Setting accelerator to CPU",
        "Said at every import on a machine without GPUs. `poma doctor` says which device trains.",
    ),
    Noise(
        REQUESTS_LOGGER,
        r"Failed to send resource request .* safe to ignore",
        "20 lines of traceback whenever the machine is busy; the request is sent again seconds later.",
    ),
    Noise(
        "",
        r"class name: 'PreemptionWatcher'.*max_restarts > 0",
        "Ray Train's own actor at every start of workers, written as an error (Ray's issue 53727): its "
        "arguments are handles of workers, and it ends with them.",
    ),
    Noise(
        "",
        r"Failed to query Ray Train Controller actor state\. State API may be temporarily unavailable",
        "Of an actor of Ray Train on a cluster that was there before (PlacementGroupCleaner): the dashboard "
        "did not answer in 10 s, on a busy machine or one without. It asks again a second later, and what it "
        "then does about a dead controller it says in another line.",
    ),
    Noise(
        "",
        r"A worker died or was killed while executing a task by an unexpected system error",
        "Ray's ten lines of guesses about each killed worker; the line of its first cause says which.",
    ),
    Noise(
        "",
        r"\d+ PYTHON worker processes have been started on node",
        "Trials and workers claim fractions of a CPU: more processes than cores are meant.",
    ),
    Noise(
        "",
        r"Checkpoint successfully created at: ",
        "Of each report of each trial of a sweep, with a path that nobody opens: `poma sweep show` has it.",
    ),
)


class _Without(logging.Filter):
    def __init__(self, noise: Sequence[Noise]) -> None:
        super().__init__()
        self.patterns = [re.compile(one.words) for one in noise]

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(pattern.search(record.getMessage()) for pattern in self.patterns)


def drop_noise(known: Sequence[Noise] = KNOWN) -> None:
    """Drop what is known in this process, now and of libraries that are imported later."""
    for name in {one.logger for one in known if one.logger}:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Without) for each in logger.filters):
            logger.addFilter(_Without([one for one in known if one.logger == name]))


def is_known_line(line: str, known: Sequence[Noise] = KNOWN) -> bool:
    """Whether a line that a process of Ray wrote is one of them."""
    return any(re.search(one.words, line, re.DOTALL) for one in known if not one.logger)


def drop_noisy_lines() -> None:
    """Print no known line of workers and of Ray itself in this driver; into a file, which has no colours,
    without which process wrote each. Call before `ray.init`."""
    is_file = not sys.stdout.isatty()
    if is_file:
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    replace_printer(lambda show: without_known_lines(show, is_file))


def without_known_lines(show: Print, is_plain: bool = False) -> Print:
    """The printer without the known lines.

    Args:
        is_plain: leave out which process wrote a line to its standard output; errors say it anyway.
    """

    def show_rest(data: dict[str, Any], ignore_prefix: bool) -> None:
        lines = [line for line in data["lines"] if not is_known_line(str(line))]
        if lines:
            show({**data, "lines": lines}, ignore_prefix=ignore_prefix or (is_plain and not data["is_err"]))

    return show_rest


def log_to_terminal(label: str = "") -> None:
    """Send this package's messages to the terminal as plain lines; Ray adds which process it was.

    Args:
        label: what they begin with.
    """
    package = logging.getLogger("plinth")
    if not package.handlers:
        handler = _Terminal()
        handler.setFormatter(logging.Formatter(f"{label} %(message)s".lstrip()))
        handler.addFilter(RedactionFilter())
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False


class _Terminal(logging.Handler):
    """Writes to `sys.stdout` as it is at the time of the message: it may be replaced meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")
        sys.stdout.flush()
