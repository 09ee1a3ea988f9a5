"""Flags of `poma profile`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "pretrain")
    parser.add_argument("--steps", type=int, default=10, help="steps that are taken apart (default 10)")
    parser.add_argument("--traced", type=int, default=3, help="steps in the trace after them (default 3)")
    parser.add_argument(
        "--folder", default="profile", help="folder or URI of page and traces (default %(default)s)"
    )
