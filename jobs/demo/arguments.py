"""Flags of `poma demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_overrides
from jobs.common.run_layout import CONFIGS


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_overrides(parser, "demo")
    parser.add_argument(
        "--job",
        type=Path,
        default=CONFIGS / "demo.yaml",
        help="another file of the same kind, such as @rooms (default the demo's)",
    )
