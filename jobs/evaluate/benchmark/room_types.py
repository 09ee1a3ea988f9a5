"""Room types of scans: zero-shot by sentences, few-shot by a linear classifier."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.evaluate.benchmark.gallery import Gallery
from jobs.evaluate.benchmark.result import BenchmarkResult
from jobs.evaluate.benchmark.scenes import Encode
from jobs.evaluate.measure import Features
from plinth.errors import DataError
from plinth.units import counted
from poma3d.annotations.ceiling import room_of
from poma3d.evaluate.bootstrap import Estimate, mean_over_scenes
from poma3d.evaluate.config import ProbeConfig
from poma3d.evaluate.zero_shot.config import RoomTypeConfig
from poma3d.evaluate.zero_shot.room_types import few_shot, few_shot_split, is_best, type_features
from poma3d.sample import Sample

KEY = "benchmark.room_type"
ZERO_SHOT = "zero-shot"
SPLIT = (
    "k rooms of each type and one scan of each; other scans of them on neither side; types of k rooms or "
    "fewer left out"
)


def read_labels(path: str) -> dict[str, str]:
    """Scene -> type, blanks for underscores.

    Raises:
        DataError: no JSON object of texts.
    """
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{KEY}.labels: {path} cannot be read ({error}).", "Give JSON: {scene id: type}."
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{KEY}.labels: {path} holds no object.", "Give JSON: {scene id: type}.")
    for scene, kind in content.items():
        if not isinstance(kind, str) or not kind.strip():
            raise DataError(
                f"{KEY}.labels: {path}, {scene}: the type is {kind!r}.", "Give each scene a type."
            )
    return {scene: " ".join(kind.replace("_", " ").split()) for scene, kind in content.items()}


def room_types(
    config: RoomTypeConfig, samples: Sequence[Sample], features: Features, encode: Encode
) -> list[BenchmarkResult]:
    """One result: accuracy zero-shot, and with few scenes of each type.

    Raises:
        DataError: labels that cannot be used, or fewer than two types among the data set's scenes.
    """
    assert config.labels is not None
    labels = read_labels(config.labels)
    gallery = Gallery.of(samples, labels)
    scans = [scan for scan in gallery.views if scan in labels]
    kinds = sorted({labels[scan] for scan in scans})
    if len(kinds) < 2:
        raise DataError(
            f"{KEY}.labels: {config.labels} has {counted(len(kinds), 'type')} for the "
            f"{len(gallery.views)} scenes of the data set.",
            "Give labels of its scenes, of two types or more.",
        )
    label = np.array([kinds.index(labels[scan]) for scan in scans])
    sentences = [template.replace("{}", kind) for kind in kinds for template in config.templates]
    texts = type_features(encode(sentences, False).reshape(len(kinds), len(config.templates), -1))
    common = Counter(label.tolist()).most_common(1)[0][1] / len(label)
    references = {"chance": {ZERO_SHOT: 1 / len(kinds)}, "the most common type": {ZERO_SHOT: common}}
    counts = {
        "scans": len(scans),
        "types": len(kinds),
        "labelled scenes that are missing": len(set(labels) - set(scans)),
    }
    protocol: dict[str, str | int | float] = {
        "templates": len(config.templates),
        "draws": config.draws,
        "split": SPLIT,
        "ties": "against us",
    }
    result = BenchmarkResult("room type, accuracy", [Path(config.labels).name], protocol, counts, references)
    rooms = [room_of(scan) for scan in scans]
    splits = {shots: _splits(config, label, rooms, shots) for shots in config.shots}
    for shots, drawn in splits.items():
        if drawn:
            left = len(np.unique(label[drawn[0][1]]))
            references["chance"][f"{shots}-shot"] = 1 / left
            counts[f"types scored {shots}-shot"] = left
    for name, views in features.views.items():
        scenes = gallery.scene_features(views, scans)
        right = is_best(scenes @ texts.T, label).astype(float)
        row = {ZERO_SHOT: mean_over_scenes(right, np.arange(len(scans)), len(scans), config.bootstrap)}
        for shots, drawn in splits.items():
            if drawn:
                row[f"{shots}-shot"] = _few_shot(config, scenes, label, drawn)
        result.figures[name] = dict(row)
    return [result]


def _splits(
    config: RoomTypeConfig, label: np.ndarray, rooms: list[str], shots: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The draws; none where fewer than two types have more than `shots` rooms."""
    rng = np.random.default_rng([config.seed, shots])
    drawn = [few_shot_split(label, rooms, shots, rng) for _ in range(config.draws)]
    return [(learn, score) for learn, score in drawn if len(np.unique(label[learn])) > 1 and score.any()]


def _few_shot(
    config: RoomTypeConfig, scenes: np.ndarray, label: np.ndarray, drawn: list[tuple[np.ndarray, np.ndarray]]
) -> Estimate:
    probe = ProbeConfig(l2=config.l2, steps=config.steps)
    right = [few_shot(scenes, label, learn, score, probe) for learn, score in drawn]
    scene = np.concatenate([np.flatnonzero(score) for _, score in drawn])
    return mean_over_scenes(np.concatenate(right).astype(float), scene, len(label), config.bootstrap)
