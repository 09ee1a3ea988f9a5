"""Flags of `poma lift`."""

from __future__ import annotations

import argparse

from jobs.common.flags import add_check_inputs, add_job


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_job(parser, "lift")
    add_check_inputs(parser)
