"""Flags of `poma shards`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.flags import add_action, add_storage_flags
from plinth.data.config import Codec, ShardOptions


def add(parser: argparse.ArgumentParser) -> None:
    """Declare its actions with their flags."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("inspect", "what the data set holds: sizes, teacher, source, statistics"),
        ("verify", "check every shard against the manifest; exit code 2 when one is damaged"),
        ("preview", "write a contact sheet: colour, depth, point map, top view; what lift rejected"),
    ):
        action = add_action(actions, name, text)
        action.add_argument("uri", help="a folder or s3://bucket/prefix; with #3, its version 3")
        add_storage_flags(action)
        if name == "preview":
            action.add_argument(
                "--out", type=Path, default=Path("preview.png"), help="PNG to write (default %(default)s)"
            )
            action.add_argument(
                "--samples", type=int, default=4, help="how many scenes to show (default %(default)s)"
            )
    text = "write a data set of format 1, or of another codec, with its versions to a new folder"
    convert = add_action(actions, "convert", text)
    convert.add_argument("old", metavar="OLD", help="a folder or s3://bucket/prefix; it is left as it is")
    convert.add_argument("new", metavar="NEW", help="a folder or s3://bucket/prefix without a data set")
    convert.add_argument(
        "--codec", choices=[codec.value for codec in Codec], default=ShardOptions().depth_codec.value,
        help="of depth and points: lz4 is read fastest, jxl is smallest (default %(default)s)",
    )  # fmt: skip
    convert.add_argument("--level", type=int, help="of the codec; its own default when not given")
    add_storage_flags(convert)
