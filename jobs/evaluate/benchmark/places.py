"""Localisation: the views of a scene ranked by a text; those nearest to where it was said are right.

Legend: V views of a scan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.evaluate.benchmark.gallery import Gallery
from jobs.evaluate.benchmark.result import BenchmarkResult, file_names, read_annotations
from jobs.evaluate.benchmark.scenes import Encode
from jobs.evaluate.measure import Features
from plinth.errors import DataError
from plinth.units import counted
from poma3d.annotations.poses import SQA3D, moved_to_world, rotation_matrix
from poma3d.annotations.rows import CameraText
from poma3d.annotations.scan_frames import ScanFrames
from poma3d.evaluate.bootstrap import mean_over_scenes
from poma3d.evaluate.retrieval import TIE_TOLERANCE
from poma3d.evaluate.zero_shot.config import LocalisationConfig
from poma3d.evaluate.zero_shot.places import nearest, offsets
from poma3d.evaluate.zero_shot.ranks import chance_of_any, ranks
from poma3d.sample import Sample

METRES, DEGREES = "median m to the best view", "median degrees to it"


@dataclass(frozen=True)
class Placed:
    """A text with how far each view of its scan is from where it was said."""

    row: CameraText
    metres: np.ndarray
    """float64 [V]."""
    degrees: np.ndarray
    """float64 [V]."""
    right: np.ndarray
    """bool [V]."""


def localisation(
    config: LocalisationConfig, key: str, samples: Sequence[Sample], features: Features, encode: Encode
) -> list[BenchmarkResult]:
    """One result: is a view near the true camera among the best, and how far is the best one?

    Of views that tie for the best, the farthest counts.

    Raises:
        DataError: files that cannot be used, views without cameras, or no row that can be placed.
    """
    rows = read_annotations("localisation", config.files, key).camera_texts
    return [located(rows, file_names(config.files), config, key, samples, features, encode)]


def located(
    rows: Sequence[CameraText],
    source: list[str],
    config: LocalisationConfig,
    key: str,
    samples: Sequence[Sample],
    features: Features,
    encode: Encode,
) -> BenchmarkResult:
    """The same for rows that are at hand.

    Args:
        source: where they are from, for the table.

    Raises:
        DataError: views without cameras, or no row that can be placed.
    """
    gallery = Gallery.of(samples, {row.scene_id for row in rows})
    if not gallery.has_cameras:
        raise DataError(
            f"{key}: the data set's views have no cameras.", "Use a data set with depth and cameras."
        )
    placed, counts = place(rows, gallery, config, key)
    if not placed:
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        raise DataError(
            f"{key}: no row of {', '.join(config.files or source)} can be placed: {why}.",
            "Name scans, or other files.",
        )
    texts = encode([each.row.text for each in placed], False)
    scans = list(dict.fromkeys(each.row.scene_id for each in placed))
    of_scan = np.array([scans.index(each.row.scene_id) for each in placed])
    right = np.array([each.right.sum() for each in placed])
    total = np.array([len(each.right) for each in placed])
    result = BenchmarkResult(
        "localisation by the annotators' cameras",
        source,
        {
            "right": counted(config.nearest, "nearest view"),
            "degrees like a metre": config.degrees_per_metre,
            "texts": "short mode",
            "ties": "against us",
        },
        counts,
        {
            "chance": {f"R@{k}": float(chance_of_any(right, total, k).mean()) for k in config.best}
            | _medians([each.metres.mean() for each in placed], [each.degrees.mean() for each in placed]),
            "nearest view": dict.fromkeys([f"R@{k}" for k in config.best], 1.0)
            | _medians(*zip(*(_at(each, _distance(each, config).argmin()) for each in placed), strict=True)),
        },
    )
    for name, views in features.views.items():
        unit = {scan: gallery.view_features(views, scan) for scan in scans}
        found, best = [], []
        for text, each in zip(texts, placed, strict=True):
            cosines = unit[each.row.scene_id] @ text
            found.append(ranks(cosines[None], each.right[None])[0])
            tied = cosines >= cosines.max() - TIE_TOLERANCE
            best.append(_at(each, np.where(tied, _distance(each, config), -1.0).argmax()))
        hits = {f"R@{k}": (np.array(found) <= k).astype(float) for k in config.best}
        result.figures[name] = {
            **{
                c: mean_over_scenes(values, of_scan, len(scans), config.bootstrap)
                for c, values in hits.items()
            },
            **_medians(*zip(*best, strict=True)),
        }
    return result


def place(
    rows: Sequence[CameraText], gallery: Gallery, config: LocalisationConfig, key: str
) -> tuple[list[Placed], dict[str, int]]:
    """Rows in our world frame beside the views of their scans, and how many were left out, by reason.

    Raises:
        DataError: the folder of scans is none, or a file in it is damaged.
    """
    try:
        frames = ScanFrames(Path(config.scans)) if config.scans else None
    except ValueError as error:
        raise DataError(f"{key}.scans: {error}.", "Name a folder with SCAN/SCAN.txt.") from None
    left_out: Counter[str] = Counter()
    unaligned: set[str] = set()
    placed = []
    for row in rows:
        if row.scene_id not in gallery.views:
            left_out["of scenes that are missing"] += 1
            continue
        if not gallery.in_one_frame(row.scene_id):
            left_out["of scans that are kept as single images, each in the frame of its camera"] += 1
            continue
        if not row.text.strip():
            left_out["without a text"] += 1
            continue
        try:
            scan = frames.frame(row.scene_id, mesh=row.frame == SQA3D) if frames else None
        except ValueError as error:
            raise DataError(f"{key}.scans: {error}.", "Download the file again.") from None
        try:
            moved = moved_to_world(row, scan)
        except ValueError as error:
            left_out[f"left out: {error}"] += 1
            continue
        if scan is not None and scan.alignment is None:
            unaligned.add(row.scene_id)
        pose = gallery.poses(row.scene_id)
        metres, degrees = offsets(pose, np.array(moved.position), rotation_matrix(moved.rotation))
        right = nearest(metres, degrees, config.nearest, config.degrees_per_metre)
        placed.append(Placed(moved, metres, degrees, right))
    counts = {"rows placed": len(placed), **left_out}
    return placed, counts | ({"scans without axisAlignment": len(unaligned)} if unaligned else {})


def _distance(each: Placed, config: LocalisationConfig) -> np.ndarray:
    distance: np.ndarray = each.metres + each.degrees / config.degrees_per_metre
    return distance


def _at(each: Placed, view: np.intp) -> tuple[float, float]:
    return float(each.metres[view]), float(each.degrees[view])


def _medians(metres: Sequence[float], degrees: Sequence[float]) -> dict[str, float]:
    return {METRES: float(np.median(metres)), DEGREES: float(np.median(degrees))}
