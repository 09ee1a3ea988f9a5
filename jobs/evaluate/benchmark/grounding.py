"""View grounding: the views of a scene ranked by a sentence about something in it.

Legend: n rows of a scan, V its views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from jobs.evaluate.benchmark.gallery import Gallery
from jobs.evaluate.benchmark.result import BenchmarkResult, file_names, read_annotations
from jobs.evaluate.benchmark.scenes import Encode
from jobs.evaluate.measure import Features
from plinth.errors import DataError
from poma3d.annotations.rows import Utterance
from poma3d.evaluate.bootstrap import mean_over_scenes
from poma3d.evaluate.zero_shot.config import GroundingConfig
from poma3d.evaluate.zero_shot.ranks import chance_of_any, ranks
from poma3d.sample import Sample

FIRST, ANY = "first view", "any visible view"


def grounding(
    config: GroundingConfig, key: str, samples: Sequence[Sample], features: Features, encode: Encode
) -> list[BenchmarkResult]:
    """Two results: only the first view of a row's list is right, or any of the list.

    A row without a list, or with indices of no view alone, is skipped and counted, never wrong. The first is
    the first index that is one of a view.

    Raises:
        DataError: files that cannot be used, or no row that can be ranked.
    """
    rows = read_annotations("retrieval", config.files, key).utterances
    gallery = Gallery.of(samples, {row.scene_id for row in rows})
    kept, counts = usable(rows, gallery)
    if not kept:
        skipped = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
        raise DataError(
            f"{key}: no row of {config.files[0]} can be ranked: {skipped}.", "Give rows with views."
        )
    texts = encode([row.text for row, _ in kept], False)
    scans = list(dict.fromkeys(row.scene_id for row, _ in kept))
    places = defaultdict(list)
    for place, (row, _) in enumerate(kept):
        places[row.scene_id].append(place)
    of_scan = np.array([scans.index(row.scene_id) for row, _ in kept])
    total = np.array([len(gallery.views[row.scene_id]) for row, _ in kept])
    results = []
    for answer in (FIRST, ANY):
        lists = [views[:1] if answer == FIRST else views for _, views in kept]
        number = np.array([len(set(views)) for views in lists])
        result = BenchmarkResult(
            f"view grounding, {answer}",
            file_names(config.files),
            {"right": answer, "texts": "short mode", "ties": "against us"},
            counts,
            {"chance": {f"R@{k}": float(chance_of_any(number, total, k).mean()) for k in config.best}},
        )
        for name, views in features.views.items():
            found = np.zeros(len(kept), np.int64)
            for scan, of in places.items():
                seen = gallery.view_features(views, scan)
                right = np.stack([np.isin(np.arange(len(seen)), lists[place]) for place in of])
                found[of] = ranks(texts[of] @ seen.T, right)
            result.figures[name] = {
                f"R@{k}": mean_over_scenes((found <= k).astype(float), of_scan, len(scans), config.bootstrap)
                for k in config.best
            }
        results.append(result)
    return results


def usable(
    rows: Sequence[Utterance], gallery: Gallery
) -> tuple[list[tuple[Utterance, tuple[int, ...]]], dict[str, int]]:
    """Rows with the indices of their list that are views, and how many were skipped, by reason."""
    kept = []
    counts = dict.fromkeys(
        (
            "rows ranked",
            "skipped without a list",
            "skipped with indices of no view",
            "of scenes that are missing",
        ),
        0,
    )
    for row in rows:
        if row.scene_id not in gallery.views:
            counts["of scenes that are missing"] += 1
            continue
        views = tuple(view for view in row.views if 0 <= view < len(gallery.views[row.scene_id]))
        if views:
            kept.append((row, views))
            counts["rows ranked"] += 1
        else:
            counts["skipped with indices of no view" if row.views else "skipped without a list"] += 1
    return kept, counts
