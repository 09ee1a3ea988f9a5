"""Flags of `poma ask`."""

from __future__ import annotations

import argparse

from jobs.view.arguments import add_page_flags


def add(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run of `poma finetune` (output/name), of a head or a language model",
    )
    parser.add_argument("scene", metavar="SCENE", help="id of a scene whose features are there")
    parser.add_argument(
        "questions",
        nargs="+",
        metavar="QUESTION",
        help='what is asked: "how many chairs are there?"; several are answered in turn',
    )
    parser.add_argument(
        "--situation",
        action="append",
        default=[],
        metavar="TEXT",
        help="what is said before each question, as in sqa3d; twice for hypo3d (orientation, change) and "
        "msnn (situation, interaction)",
    )
    parser.add_argument(
        "--pose",
        nargs=3,
        type=float,
        metavar=("X", "Y", "DEGREES"),
        help="where you stand and look, for heads and language models that see cells of space: metres in the "
        "scene, and the angle from its x axis, counter-clockwise",
    )
    parser.add_argument("--step", type=int, help="which checkpoint (default the best of the run's results)")
    parser.add_argument(
        "--features",
        action="append",
        metavar="DATA",
        help="output of `poma features` with the scene (default those of the run's job)",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="the data set of scenes (default the one that the features were made of; where the encoder was "
        "trained with the head, and where cells of space are seen, those of the run's job)",
    )
    add_page_flags(parser, "asked.html")
