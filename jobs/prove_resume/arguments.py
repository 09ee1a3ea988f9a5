"""Flags of `poma prove-resume`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "demo")
    parser.add_argument("--steps", type=int, default=12, help="length of each stage (default 12)")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints (default 4)")
    parser.add_argument(
        "--folder", default="prove-resume", help="where its runs and the page go (default %(default)s)"
    )
