"""Flags of `poma view`, and what `poma locate` has in common with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_storage_flags
from jobs.view.config import PageConfig
from plinth.counts import too_small
from plinth.errors import ConfigError


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_scene(parser)
    add_page_flags(parser, "scene.html")


def add_scene(parser: argparse.ArgumentParser) -> None:
    """The data set and the scene, both positional."""
    parser.add_argument(
        "data", metavar="DATA", help="a data set: folder or s3://bucket/prefix; with #3, its version 3"
    )
    parser.add_argument("scene", metavar="SCENE", help="id of a scene, as ingest gave it")


def add_page_flags(parser: argparse.ArgumentParser, output: str) -> None:
    """Where the page goes and what it holds.

    Args:
        output: the file that is written when none is named.
    """
    config = PageConfig()
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="FILE.html",
        help="page to write (default %(default)s)",
    )
    parser.add_argument(
        "--points", type=int, default=config.points, help="points of the cloud at most (default %(default)s)"
    )
    parser.add_argument(
        "--views", type=int, default=config.views, help="views on the page at most (default %(default)s)"
    )
    add_storage_flags(parser)


def page_config(arguments: argparse.Namespace) -> PageConfig:
    """What the flags say.

    Raises:
        ConfigError: a count below 1.
    """
    config = PageConfig(points=arguments.points, views=arguments.views)
    for key, value, least in too_small(config):
        raise ConfigError(f"--{key} is {value}.", f"Give {least} or more.")
    return config
