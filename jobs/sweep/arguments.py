"""Flags of `poma sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_action, add_job, add_storage_flags
from jobs.jobfile import SHIPPED_MARK

RUN = "run"


def with_action(words: list[str]) -> list[str]:
    """`poma sweep JOB` is `poma sweep run JOB`."""
    if len(words) > 1 and (words[1].endswith(".yaml") or words[1].startswith(SHIPPED_MARK)):
        return [words[0], RUN, *words[1:]]
    return words


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its actions with their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="JOB | ACTION")
    start = add_action(actions, RUN, "run a sweep, the same as `poma sweep JOB`; resumes by itself")
    add_job(start, "sweep")
    for name, text in (
        ("show", "a line for each trial: values, metric, status, cost"),
        ("promote", "write a job of full length with the values of a trial"),
    ):
        action = add_action(actions, name, text)
        action.add_argument("uri", help="the sweep's folder: STORAGE/NAME")
        add_storage_flags(action)
        if name == "show":
            action.add_argument("--follow", action="store_true", help="until the sweep is over")
            continue
        action.add_argument("trial", help="its number, such as 003, or best")
        action.add_argument(
            "--out", type=Path, default=Path("promoted.yaml"), help="job file to write (default %(default)s)"
        )
        action.add_argument("--output", help="where its run goes; where the sweep is, when left out")
        action.add_argument("--with-checkpoint", action="store_true", help="start from the trial's weights")
