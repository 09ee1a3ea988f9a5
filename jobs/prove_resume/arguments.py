"""Flags of `poma prove-resume`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job

KILLED_RANK, KILLED_UPLOAD, KILLED_DRIVER, RESIZED = (
    "killed-rank",
    "killed-upload",
    "killed-driver",
    "resized",
)
FAULTY = (KILLED_RANK, KILLED_UPLOAD, KILLED_DRIVER, RESIZED)
"""Scenarios that are compared with the straight run."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "demo")
    parser.add_argument("--steps", type=int, default=12, help="length of each stage (default 12)")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints (default 4)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=FAULTY,
        metavar="SCENARIO",
        default=list(FAULTY),
        help=f"beside the straight run: {', '.join(FAULTY)} (default all)",
    )
    parser.add_argument(
        "--folder", default="prove-resume", help="where its runs and the page go (default %(default)s)"
    )
