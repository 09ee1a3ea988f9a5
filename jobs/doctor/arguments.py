"""Flags of `poma doctor`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_optional_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_optional_job(parser, "a job that trains; this machine alone without one")
    of_file = "cluster file, such as clusters/aws-h100.yaml; of a Kubernetes manifest the versions alone"
    parser.add_argument("--cluster", type=Path, help=of_file)
