"""The words of a command that takes a job file: the file, and overrides of its keys."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_job(parser: argparse.ArgumentParser, name: str) -> None:
    """The job file and its overrides, both positional."""
    parser.add_argument("job", type=Path, help=f"job file, such as jobs/configs/{name}.yaml")
    add_overrides(parser, "job")


def add_optional_job(parser: argparse.ArgumentParser, text: str) -> None:
    """The same for a command that also works without a job.

    Args:
        text: which jobs it takes.
    """
    parser.add_argument("job", type=Path, nargs="?", help=text)
    add_overrides(parser, "job")


def add_overrides(parser: argparse.ArgumentParser, whose: str) -> None:
    """`key=value` words."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"overrides of the {whose}'s keys")
