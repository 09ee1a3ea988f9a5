"""Flags of `poma ingest`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_check_inputs, add_optional_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_optional_job(parser, "job file, or a shipped one by name: @ingest_scannet")
    add_check_inputs(parser)
    group = parser.add_argument_group("in place of a job file")
    group.add_argument(
        "--detect",
        type=Path,
        metavar="FOLDER",
        help="say which layout of scans lies there, write its job",
    )
    group.add_argument(
        "--write", type=Path, metavar="FILE", help="the job file to write (default ingest_LAYOUT.yaml here)"
    )
    group.add_argument("--layout", help="which one, where more than one fits")
