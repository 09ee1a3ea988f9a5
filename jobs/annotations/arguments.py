"""Flags of `poma annotations`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_action, add_storage_flags
from poma3d.annotations.names import DIRECTIONS, KINDS


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its actions with their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = add_action(
        actions, "check", "count rows, scenes and types, name what is bad and odd; exit code 2 on bad rows"
    )
    check.add_argument("kind", choices=KINDS, help="what the files are of")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="all files of one split")
    check.add_argument("--scenes", metavar="DATA", help="name the scenes that this data set lacks")
    check.add_argument(
        "--scans", type=Path, metavar="FOLDER",
        help="ScanNet's SCAN/SCAN.txt and SCAN/SCAN_vh_clean_2.ply, to bring poses to our world frame",
    )  # fmt: skip
    check.add_argument(
        "--vocabulary", type=Path, metavar="FILE",
        help="count answers outside it: an answer dictionary, a list, or ScanQA's training file",
    )  # fmt: skip
    check.add_argument(
        "--directions", type=int, choices=DIRECTIONS, default=DIRECTIONS[0],
        help="of MSNN (default %(default)s)",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="print all of it as JSON")
    add_storage_flags(check)
