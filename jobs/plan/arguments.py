"""Flags of `poma plan`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "pretrain")
    parser.add_argument("--cluster", type=Path, help="cluster file, such as clusters/aws-h100.yaml")
    parser.add_argument("--prices", type=Path, help="price table; else the one beside the cluster file")
    parser.add_argument("--mfu", type=float, help="share of a GPU's peak that is assumed to be reached")
    parser.add_argument(
        "--assume", action="append", default=[], metavar="STAGE.samples=N",
        help="size of a data set that is not there yet; STAGE.views=N for its views",
    )  # fmt: skip
