"""The work on one piece and on one part of the input: scan it; read, lift and finish it.

    scan     every image of a piece: hash, caption, can it be decoded -> the piece's index
    read     bytes of a part's images -> pictures               CPU
    lift     pictures -> samples with embeddings                where the models are
    finish   samples -> shard -> commit                         CPU

What is wrong with an image is a reject; what is wrong with the input as a whole is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.common import models
from jobs.common.datasets import statistics
from jobs.common.devices import own_device
from jobs.common.objects import read_table, write_table
from jobs.embed.command import embed_samples
from jobs.lift import lifters
from jobs.lift.config import LiftJob
from jobs.lift.contact_sheet import THUMBNAIL_PX, thumbnail
from jobs.lift.images.registry import open_set
from jobs.lift.images.sets import VALUE_CHARACTERS, BadRecord, ImageRecord, InputPiece
from jobs.lift.scanned_inputs import record_piece
from jobs.lift.versions import DUPLICATE, INDEX_SCHEMA, Commit, Part, Rejected, index_key, write_commit
from plinth.data.shards import write_shard
from plinth.errors import DataError
from plinth.redaction import printable
from plinth.storage import Storage
from poma3d.lift.config import FilterConfig
from poma3d.lift.convention import to_sample
from poma3d.lift.filters import check_lifted, check_stored, decode_image, keep_captions, perceptual_hash
from poma3d.lift.given import decode_depth
from poma3d.lift.lifter import BadImage, GivenDepth, InputImage
from poma3d.sample import Sample, SampleShape, encode

TO_SHOW = FilterConfig(min_side_px=1)
"""What may be shown of rejects: all that can be decoded."""


@dataclass(frozen=True)
class LiftWork:
    """What all tasks of a job share."""

    job: LiftJob
    """With absolute paths."""
    output: Storage
    recipe: str
    """Fingerprint of what decides what an image becomes."""
    shape: SampleShape
    check_inputs: bool = False
    """Record every byte of the inputs."""


@dataclass(frozen=True)
class ScanTask:
    """One piece to be scanned."""

    work: LiftWork
    piece: InputPiece


@dataclass
class ReadPart:
    """A part whose images are decoded; with what was rejected so far."""

    part: Part
    pictures: list[InputImage]
    places: dict[str, str]
    """Image id -> where it is, for people."""
    rejects: list[Rejected]
    shown: dict[str, tuple[str, str]]
    """Reason -> thumbnail and value of one reject."""


@dataclass
class LiftedPart:
    """A part whose images are samples."""

    part: Part
    samples: list[Sample]
    rejects: list[Rejected]
    shown: dict[str, tuple[str, str]]


def scan_piece(task: ScanTask) -> None:
    """Write what a piece is, then its index.

    Raises:
        DataError: the piece is not of its set's layout.
    """
    work, piece = task.work, task.piece
    record_piece(work.output, piece, work.check_inputs)
    rows = [_index_row(found, work.job.gates) for found in open_set(piece.config, piece.options).scan(piece)]
    table = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    write_table(work.output, index_key(work.recipe, piece.identity), table)


def read_part(work: LiftWork, piece: InputPiece, part: Part) -> ReadPart:
    """Decode the images of a part.

    Raises:
        DataError: an image is no longer what it was when it was scanned.
    """
    index = read_table(work.output, index_key(work.recipe, part.piece)).slice(
        part.start, part.stop - part.start
    )
    rejects: list[Rejected] = []
    asked: list[tuple[dict[str, str], Rejected | None]] = []
    shown: set[str] = set()
    for number, row in enumerate(index.to_pylist(), start=part.start):
        reject = _known_reject(row, part.repeats.get(str(number)))
        if reject is not None:
            rejects.append(reject)
            if row["locator"] is None or reject.reason in shown:
                continue
            shown.add(reject.reason)
        asked.append((row, reject))
    read = ReadPart(part, [], {}, rejects, {})
    records = open_set(piece.config, piece.options).read(piece, [row["locator"] for row, _ in asked])
    for (row, reject), record in zip(asked, _exactly(records, [row for row, _ in asked], piece), strict=True):
        if reject is not None:
            with contextlib.suppress(BadImage):
                picture = thumbnail(decode_image(record.image, TO_SHOW, THUMBNAIL_PX))
                read.shown[reject.reason] = picture, reject.value
            continue
        try:
            read.pictures.append(_picture(record, piece, work))
            read.places[row["image_id"]] = row["place"]
        except BadImage as bad:
            rejects.append(Rejected(row["image_id"], row["place"], bad.reason, bad.value))
    return read


def lift_part(work: LiftWork, read: ReadPart) -> LiftedPart:
    """Lift, check and embed the pictures of a part, with the models of this process."""
    lifter = lifters.open_lifter(work.job.lifter, work.job.storage)
    samples, rejects, shown = [], list(read.rejects), dict(read.shown)
    try:
        answers = lifter.lift(read.pictures)
    except ValueError as error:
        raise DataError(f"{error}.") from None
    for picture, lifted in zip(read.pictures, answers, strict=True):
        try:
            if isinstance(lifted, BadImage):
                raise lifted
            check_lifted(lifted, work.job.gates)
            sample = to_sample(picture, lifted, work.job.source, work.shape, work.job.convention)
            check_stored(sample.depth, work.job.gates)
            samples.append(sample)
        except BadImage as bad:
            rejects.append(Rejected(picture.image_id, read.places[picture.image_id], bad.reason, bad.value))
            if bad.reason not in shown:
                shown[bad.reason] = thumbnail(picture.rgb), bad.value
    if work.job.teacher is not None and samples:
        teacher = models.open_teacher(work.job.teacher, work.job.storage, own_device())
        embed_samples(samples, teacher, work.shape, tokens=False)
    return LiftedPart(read.part, samples, rejects, shown)


def finish_part(work: LiftWork, lifted: LiftedPart) -> str:
    """Write the shard of a part, then its commit; returns the part's name."""
    shard = None
    if lifted.samples:
        table = encode(lifted.samples, work.shape)
        shard = vars(write_shard(work.output, lifted.part.name, table, work.job.shards))
    commit = Commit(shard, statistics(lifted.samples), lifted.rejects, lifted.shown)
    write_commit(work.output, lifted.part.name, commit)
    return lifted.part.name


def _known_reject(row: dict[str, str], earlier: str | None) -> Rejected | None:
    """What is known of an indexed image before it is lifted: rejected by the scan, or a repeat."""
    if row["reason"] is not None:
        return Rejected(row["image_id"] or "", row["place"], row["reason"], row["value"])
    return Rejected(row["image_id"], row["place"], DUPLICATE, earlier) if earlier is not None else None


def _index_row(found: ImageRecord | BadRecord, gates: FilterConfig) -> dict[str, object]:
    if isinstance(found, BadRecord):
        value = printable(found.value[:VALUE_CHARACTERS])
        return {"place": printable(found.place), "reason": found.reason, "value": value}
    row = {"image_id": found.image_id, "place": printable(found.place), "locator": found.locator}
    try:
        keep_captions(found.captions, gates)
        perceptual = perceptual_hash(found.image, gates)
    except BadImage as bad:
        return {**row, "reason": bad.reason, "value": printable(bad.value)}
    return {**row, "hash": perceptual}


def _exactly(
    records: Iterator[ImageRecord], wanted: list[dict[str, str]], piece: InputPiece
) -> Iterator[ImageRecord]:
    """The records, as long as they are the ones that were indexed."""
    for row in wanted:
        record = next(records, None)
        if record is None or record.image_id != row["image_id"]:
            raise DataError(
                f"{row['place']}: the image or its caption changed after {piece.name} was scanned.",
                "Leave inputs as they are while a job runs; give changed ones another name.",
            )
        yield record


def _picture(record: ImageRecord, piece: InputPiece, work: LiftWork) -> InputImage:
    given = None
    if record.depth is not None and record.intrinsics is not None and not work.job.lifter.needs_model:
        depth = decode_depth(record.depth, piece.config.depth_unit_m)
        given = GivenDepth(depth, np.array(record.intrinsics, np.float64))
    side_px = work.job.decode_side_px
    assert side_px is not None, "the driver puts in what the lifter wants"
    rgb = decode_image(record.image, work.job.gates, side_px)
    return InputImage(record.image_id, rgb, keep_captions(record.captions, work.job.gates), given)
