"""Flags of `poma config`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "pretrain")
    parser.add_argument("--help-keys", action="store_true", help="list keys, types, defaults and meanings")
