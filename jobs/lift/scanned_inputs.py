"""What the pieces of a data set's input were when they were scanned, so that a change is noticed.

    lift/inputs/<piece>.json           sizes, times of change and hashes of a piece's files

A piece that changed its size is another piece (`jobs.lift.images.sets.identity`) and is added as one. One
that was edited in place has the same name and size: its samples would stay as they were without a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import repeat

from jobs.common.objects import names_in, read_many
from jobs.display.text import some
from jobs.lift.images.registry import open_set
from jobs.lift.images.sets import InputPiece
from plinth.data.inputs import InputFile, InputRecord, is_same, record
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage

INPUTS = "lift/inputs"
THREADS = 16


def record_piece(output: Storage, piece: InputPiece, check_inputs: bool) -> None:
    """Keep what a piece is. Local files are read whole, as the scan that follows does; objects in a store are
    known by their ETags, unless `check_inputs` asks for every byte."""
    files = _files(piece)
    if files:
        local = all(file.storage.is_local for file in files)
        kept = record(files, whole=local or check_inputs, read=local)
        output.write(_key(piece), json.dumps(asdict(kept)).encode())


def refuse_changes(output: Storage, pieces: Sequence[InputPiece], check_inputs: bool) -> str:
    """Compare pieces that the data set has with what they were.

    Args:
        check_inputs: believe no time of change.

    Returns:
        What could not be compared, in words; empty when all was.

    Raises:
        ConfigError: pieces were edited in place.
        DataError: a record cannot be read.
    """
    recorded = names_in(output, INPUTS)
    known = [piece for piece in pieces if piece.identity in recorded]
    records = [
        _parsed(output, piece, content)
        for piece, content in zip(known, read_many(output, [_key(piece) for piece in known]), strict=True)
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        same = list(pool.map(is_same, records, map(_files, known), repeat(check_inputs)))
    changed = [piece.name for piece, is_unchanged in zip(known, same, strict=True) if not is_unchanged]
    if changed:
        raise ConfigError(
            f"{output.uri} was built from other content of {some(changed)}, which changed "
            "since, at the same size.",
            "Restore it; give the changed file another name to add its images; or build into another output.",
        )
    parts = []
    if len(known) < len(pieces):
        parts.append(f"of {len(pieces) - len(known)} pieces there is no record, so changes are unknown")
    if check_inputs and (by_tag := [kept for kept in records if not kept.whole]):
        parts.append(f"{len(by_tag)} pieces were compared by their ETags alone")
    return "; ".join(parts)


def _files(piece: InputPiece) -> list[InputFile]:
    return open_set(piece.config, piece.options).files(piece)


def _key(piece: InputPiece) -> str:
    return f"{INPUTS}/{piece.identity}.json"


def _parsed(output: Storage, piece: InputPiece, content: bytes) -> InputRecord:
    try:
        return InputRecord(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{output.uri}/{_key(piece)} is not the record of {piece.name} ({error}).",
            "Restore it, or delete it: it is then unknown whether that has changed.",
        ) from None
