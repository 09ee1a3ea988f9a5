"""Arguments of `poma questions`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_storage_flags
from poma3d.synthetic.questions import TYPES

PER_TYPE = 4


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("data", help="folder or URI of a data set of procedural rooms")
    parser.add_argument("--output", help="file of the questions (default questions.jsonl in the data set)")
    parser.add_argument(
        "--per-type",
        type=int,
        default=PER_TYPE,
        help=f"most of a type about a room (default {PER_TYPE})",
    )
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES), help="which (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of what is asked (default 0)")
    parser.add_argument(
        "--tower", type=Path, help="also write a small untrained text tower that knows the questions' words"
    )
    add_storage_flags(parser)
