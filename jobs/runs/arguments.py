"""Flags of `poma runs`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_action, add_storage_flags


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its actions with their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, what, text in (
        ("list", "folder or URI that holds runs", "one line for each run"),
        ("page", "folder or URI that holds runs", "one page of all runs, their curves laid over each other"),
        ("show", "the run's folder: STORAGE/NAME", "status, ledger, checkpoints, incidents, failures"),
        ("logs", "the run's folder: STORAGE/NAME", "messages of every rank, and what failed first"),
        ("stop", "the run's folder: STORAGE/NAME", "have it save and end, wherever it runs; waits for it"),
    ):
        action = add_action(actions, name, text)
        action.add_argument("uri", help=what)
        add_storage_flags(action)
        if name == "logs":
            action.add_argument("--rank", type=int, help="only of this rank")
            action.add_argument("--lines", type=int, default=0, help="last lines of each log (0: all)")
