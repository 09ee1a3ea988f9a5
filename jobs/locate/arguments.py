"""Flags of `poma locate`."""

from __future__ import annotations

import argparse

from jobs.view.arguments import add_page_flags, add_scene


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_scene(parser)
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXT",
        help='what is to be found: "I am sitting at the desk by the window"; several are shown in turn',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="folder of a run (output/name): its last encoder and its teacher")
    source.add_argument("--encoder", help="folder of an exported encoder, with the teacher that it names")
    parser.add_argument(
        "--teacher", help="folder, URI or hub id of the teacher that embeds the texts (default the encoder's)"
    )
    parser.add_argument("--teacher-revision", help="commit of a hub id")
    add_page_flags(parser, "located.html")
