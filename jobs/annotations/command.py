"""`poma annotations check`: what annotation files hold, and what is bad and odd in them."""

from __future__ import annotations

import argparse
import json

from jobs.annotations.report import Report, known_answers, poses_of
from jobs.common.flags import storage_options
from plinth.errors import EXIT_CODE, DataError
from poma3d.annotations.read import read
from poma3d.annotations.rows import Annotations
from poma3d.annotations.scan_frames import ScanFrames
from poma3d.annotations.vocabulary import of_directions, read_vocabulary


def run(arguments: argparse.Namespace) -> int:
    """Print the report; exit code 2 where rows are bad."""
    try:
        report = inspect(arguments)
    except ValueError as error:
        raise DataError(str(error)) from None
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join(report.lines()))
        print(report.verdict())
    return EXIT_CODE if report.annotations.problems else 0


def inspect(arguments: argparse.Namespace) -> Report:
    """Read the files and compare them with vocabulary, data set and scans.

    Raises:
        ValueError: a file that cannot be used.
        DataError, StorageError: no such data set.
    """
    scans = None if arguments.scans is None else ScanFrames(arguments.scans)
    vocabulary = None if arguments.vocabulary is None else read_vocabulary(arguments.vocabulary)
    found = read(arguments.kind, arguments.files, directions=arguments.directions)
    if vocabulary is None and found.kind == "msnn":
        vocabulary = of_directions(arguments.directions)
    known = known_answers(found.questions, vocabulary) if vocabulary is not None and found.questions else None
    return Report(found, known, absent_scenes(found, arguments), poses_of(found, scans))


def absent_scenes(found: Annotations, arguments: argparse.Namespace) -> list[str] | None:
    """Scenes of the rows that the data set lacks; None where none was given."""
    if arguments.scenes is None:
        return None
    # Imported here: it loads Arrow, and storage may be far.
    from jobs.common.datasets import open_dataset

    there = open_dataset(arguments.scenes, storage_options(arguments)).scene_ids()
    return sorted({row.scene_id for row in found.rows} - there)
