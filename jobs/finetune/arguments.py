"""Flags of `poma finetune`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "qa_sqa3d")
    parser.add_argument(
        "--accept-changes", action="store_true", help="resume although the config differs from the run's"
    )
