"""Flags of `poma score`."""

from __future__ import annotations

import argparse
from pathlib import Path

from poma3d.annotations.names import DIRECTIONS, TASKS, TYPE_RULES, UNKNOWN_ANSWERS


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("task", choices=TASKS, help="what the predictions answer")
    parser.add_argument(
        "--annotations", nargs="+", type=Path, required=True, metavar="FILE", help="all files of the split"
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="FILE",
        help='JSON lines: {"question_id": ..., "answer": ...}, or "answers": [best first]; localisation: '
        '"positions" and "rotations", up to three, in the frame of the annotations',
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, not rounded")
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE",
        help="of the classifier: answers outside it are treated as --unknown-answers says",
    )  # fmt: skip
    parser.add_argument(
        "--unknown-answers", choices=UNKNOWN_ANSWERS,
        help="with --vocabulary: dropped, so that such rows are wrong; the class u; a class that no head has",
    )  # fmt: skip
    parser.add_argument(
        "--k", type=int, default=10, help="how many answers of a list count for em (default %(default)s)"
    )
    parser.add_argument(
        "--question-types", choices=TYPE_RULES, default=TYPE_RULES[0],
        help="how SQA3D's questions are told apart (default %(default)s, the published counts)",
    )  # fmt: skip
    parser.add_argument(
        "--directions", type=int, choices=DIRECTIONS, default=DIRECTIONS[0],
        help="of MSNN (default %(default)s)",
    )  # fmt: skip
