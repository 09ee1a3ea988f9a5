"""Flags of `poma export`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_job

FORMATS = ("poma3d", "transformers")
"""Those of `ExportFormat` in `config.py`, which is not opened for a line of help; a test compares them."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "export")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="poma3d: for poma3d.export.load (default); transformers: for AutoModel, with a model card",
    )
