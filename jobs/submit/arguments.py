"""Flags of `poma submit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_optional_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_optional_job(parser, "job file of any kind but demo")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--cluster", type=Path, help="cluster file, such as clusters/local.yaml")
    where.add_argument("--address", help="its dashboard, such as http://127.0.0.1:8265")
    where.add_argument("--render", type=Path, metavar="FILE", help="only write the Kubernetes manifest")
    parser.add_argument("--detach", action="store_true", help="do not follow what it prints")
    parser.add_argument("--attach", metavar="ID", help="follow one that was submitted before")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable there; not for secrets"
    )
    parser.add_argument(
        "--yes", action="store_true", help="a cluster on this machine is yours: do not ask, for scripts"
    )
    parser.add_argument("--accept-changes", action="store_true", help="as of poma pretrain")
    parser.add_argument("--skip-check", action="store_true", help="for storage that only the cluster reaches")
