"""Data sets of samples: what their manifests say, and the checks before anything reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, refuse_incomplete
from plinth.errors import DataError
from plinth.redaction import printable
from plinth.storage import Storage, StorageOptions
from plinth.units import counted
from poma3d.pretrained.config import TeacherRecord
from poma3d.sample import SCHEMA_VERSION, Classes, Sample, SampleShape, to_samples

CLASSES_KEY = "classes"
DISAGREEMENT_KEY = "disagreement"
WARNINGS_KEY = "warnings"
WORST = 3
"""Scans that are named as those whose views disagree most."""


@dataclass(frozen=True)
class DisagreementRecord:
    """How the views of each scan agree (`poma3d.scenes.disagreement`), as manifests keep it."""

    median_mm: float | None
    """Of the scans; None where none was measured."""
    max_mm: float
    """Above it ingest warned."""
    scans: dict[str, float]
    """mm of each scan that was measured."""
    not_measured: dict[str, list[str]]
    """Why not, and the scans."""

    def lines(self) -> list[str]:
        """For the terminal: the median, the worst scans, and what was not measured."""
        said = []
        if self.median_mm is not None:
            most = sorted(self.scans.items(), key=lambda item: (-item[1], item[0]))[:WORST]
            worst = ", ".join(f"{printable(scene_id)} {mm:g}" for scene_id, mm in most)
            count = len(self.scans)
            said.append(
                f"views disagree by {self.median_mm:g} mm, median of {counted(count, 'scan')}; most: {worst}"
            )
        for why, scenes in self.not_measured.items():
            first = printable(scenes[0])
            said.append(
                f"disagreement of {counted(len(scenes), 'scan')} not measured: {why}; the first is {first}"
            )
        return said

    def of(self, scene_id: str) -> str:
        """A scan's figure in words, or why it has none."""
        if scene_id in self.scans:
            return f"views disagree by {self.scans[scene_id]:g} mm"
        whys = [why for why, scenes in self.not_measured.items() if scene_id in scenes]
        return f"disagreement not measured: {whys[0]}" if whys else ""


@dataclass(frozen=True)
class Dataset:
    """A committed data set."""

    storage: Storage
    manifest: Manifest

    @property
    def shape(self) -> SampleShape:
        """The sizes that all its samples share."""
        return SampleShape(**self.manifest.attributes["shape"])

    @property
    def teacher(self) -> TeacherRecord | None:
        """Whose embeddings it holds; None before `poma embed`."""
        record = self.manifest.attributes.get("teacher")
        return TeacherRecord(**record) if record else None

    @property
    def disagreement(self) -> DisagreementRecord | None:
        """How its views agree; None of what is no scan, or was ingested before this was measured."""
        record = self.manifest.attributes.get(DISAGREEMENT_KEY)
        return DisagreementRecord(**record) if record else None

    @property
    def warnings(self) -> dict[str, list[str]]:
        """What is doubtful, and the scans."""
        found: dict[str, list[str]] = self.manifest.attributes.get(WARNINGS_KEY, {})
        return found

    def remarks(self, sample_id: str) -> list[str]:
        """What ingest found about the scan of a sample, or of a part of it (`scan/003`): how its views agree,
        "" where nobody looked, then what is doubtful; nothing where nothing is known."""
        parts = sample_id.split("/")
        ids = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        figures = [self.disagreement.of(scene_id) for scene_id in ids] if self.disagreement else []
        doubts = [text for text, scenes in self.warnings.items() if set(ids) & set(scenes)]
        return [max(figures, default=""), *doubts] if any(figures) or doubts else []

    def doubts(self) -> list[str]:
        """The warnings for the terminal, a line each."""
        return [
            f"{text}: {counted(len(scenes), 'scene')}, the first is {printable(scenes[0])}"
            for text, scenes in self.warnings.items()
        ]

    @property
    def classes(self) -> Classes | None:
        """The classes that its captions name; None where nobody knows them."""
        attributes = self.manifest.attributes
        if CLASSES_KEY not in attributes and attributes["source"] == "rooms":
            # Rooms that were ingested before manifests named classes. Imported here, because training
            # opens data sets too and needs no generator of rooms.
            from poma3d.synthetic.captions import CLASS_WORDS

            return CLASS_WORDS
        return attributes.get(CLASSES_KEY)

    def scene_ids(self) -> set[str]:
        """The scenes of its samples: of a part of a scan (`scan/003`) the part and the scan."""
        reader = RowGroupReader(self.storage)
        tables = (
            reader.read(shard, group, ["scene_id"])
            for shard in self.manifest.shards
            for group in range(len(shard.row_group_rows))
        )
        ids = {scene_id for table in tables for scene_id in table["scene_id"].to_pylist()}
        return ids | {scene_id.split("/")[0] for scene_id in ids}

    def samples(self, limit: int | None = None) -> list[Sample]:
        """The first `limit` samples, every column, into memory."""
        reader = RowGroupReader(self.storage)
        out: list[Sample] = []
        for shard in self.manifest.shards:
            for group in range(len(shard.row_group_rows)):
                if limit is not None and len(out) >= limit:
                    return out[:limit]
                out += to_samples(reader.read(shard, group, list(shard.columns)))
        return out if limit is None else out[:limit]


def made_before(storage: Storage) -> Manifest | None:
    """The manifest of a data set whose folder is named by what decides it; None where it is to be made.

    Raises:
        DataError: shards of it are gone or cut.
    """
    if not storage.exists(manifests.MANIFEST_KEY):
        return None
    manifest = manifests.load(storage)
    refuse_incomplete(storage, manifest, "Restore them, or delete the folder: it is made again.")
    return manifest


def open_dataset(uri: str, options: StorageOptions, teacher: TeacherRecord | None = None) -> Dataset:
    """The data set at `uri`; of one whose builds are kept, the one that `uri` names (`images#3`).

    Args:
        teacher: if given, the teacher that its embeddings must come from.

    Raises:
        StorageError: the storage cannot be used.
        DataError: no data set, no such version, another schema version, or another teacher.
    """
    folder, version = manifests.split_version(uri)
    storage = Storage.from_uri(folder, options)
    storage.check()
    manifest = manifests.load_version(storage, version)
    found = manifest.attributes.get("schema_version")
    if found != SCHEMA_VERSION:
        raise DataError(
            f"{storage.uri}: samples of schema version {found}, this program reads {SCHEMA_VERSION}.",
            "Run `poma ingest` again, or use the version of this program that wrote them.",
        )
    dataset = Dataset(storage, manifest)
    if teacher is not None:
        _check_teacher(dataset, teacher)
    return dataset


def _check_teacher(dataset: Dataset, wanted: TeacherRecord) -> None:
    if dataset.teacher is None:
        raise DataError(
            f"{dataset.storage.uri} has no teacher embeddings yet.",
            "Run `poma embed` on it with the job's teacher.",
        )
    if not wanted.matches(dataset.teacher):
        raise DataError(
            f"{dataset.storage.uri} was embedded by {dataset.teacher}, the job's teacher is {wanted}.",
            "Run `poma embed` with the job's teacher, or name the other teacher in the job.",
        )


def statistics(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts that add up over shards (`add_statistics`)."""
    return {
        "samples": len(samples),
        "scenes": len({s.scene_id for s in samples}),
        "views": int(sum(s.view_valid.sum() for s in samples)),
        "padded_views": int(sum((s.view_valid == 0).sum() for s in samples)),
        "view_captions": sum(len(c) for s in samples for c in s.view_captions),
        "scene_captions": sum(len(s.scene_captions) for s in samples),
        "depth_pixels": int(sum(s.depth.size for s in samples)),
        "valid_depth_pixels": int(sum(np.count_nonzero(s.depth) for s in samples)),
    }


def add_statistics(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The statistics of several shards together."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
