"""Flags of `poma checkpoints`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_action, add_storage_flags
from jobs.common.run_layout import ALL_STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its actions with their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = add_action(actions, name, text)
        sub.add_argument("uri", help="the run's folder: STORAGE/NAME")
        add_storage_flags(sub)
        return sub

    action("list", "checkpoints of both stages with step, size and state")
    verify = action("verify", "compare every file with the hash in its record; exit code 2 on damage")
    verify.add_argument("--stage", choices=ALL_STAGES, help="only of this stage")
    verify.add_argument("--step", type=int, help="only this one")
    action("repair", "commit what was whole, take damaged ones out of use, remove what no record names")
    prune = action("prune", "delete all but those that are kept")
    prune.add_argument("--keep-last", type=int, default=3, help="newest to keep (default %(default)s)")
    prune.add_argument("--keep-every", type=int, default=0, help="keep steps that are multiples of this, too")
    prune.add_argument("--keep-best", type=int, default=0, help="keep this many with the lowest loss, too")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    pin = action("pin", "keep one whatever the settings say")
    pin.add_argument("stage", choices=ALL_STAGES, help="which stage's checkpoint")
    pin.add_argument("step", type=int, help="its step, as `poma checkpoints list` shows it")
    pin.add_argument("--reason", default="", help="why it is kept; shown in its record")
    pin.add_argument("--remove", action="store_true", help="let the settings decide again")
