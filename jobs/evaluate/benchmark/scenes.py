"""Scene retrieval from annotation files, by two protocols.

Legend: Q queries, S scans of the bank, E joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jobs.evaluate.benchmark.gallery import Gallery
from jobs.evaluate.benchmark.result import BenchmarkResult, Figure, file_names, read_annotations
from jobs.evaluate.measure import Features
from plinth.errors import DataError
from poma3d.annotations.ceiling import room_of
from poma3d.annotations.rows import Annotations
from poma3d.evaluate import retrieval
from poma3d.evaluate.bootstrap import mean_over_scenes
from poma3d.evaluate.zero_shot.chunks import chunk_queries, utterances_by_scene
from poma3d.evaluate.zero_shot.config import Protocol, SceneRetrievalConfig
from poma3d.evaluate.zero_shot.ranks import batch_mean, ceiling, ranks
from poma3d.sample import Sample

Encode = Callable[[Sequence[str], bool], np.ndarray]
"""Texts, and whether in the mode for long ones -> unit features [n, E]."""
SCAN, ROOM = "scan", "room"


def scene_retrieval(
    config: SceneRetrievalConfig, key: str, samples: Sequence[Sample], features: Features, encode: Encode
) -> list[BenchmarkResult]:
    """A result for each number of utterances, by scan and by room.

    Args:
        key: of the job, for errors.

    Raises:
        DataError: files that cannot be used, or no scene of theirs is in the data set.
    """
    found = read_annotations(config.kind, config.files, key)
    said = utterances_by_scene((row.scene_id, row.text) for row in found.utterances)
    gallery = Gallery.of(samples, said)
    if not set(said) & set(gallery.views):
        raise DataError(
            f"{key}: none of the {len(said)} scenes of {config.files[0]} is in the data set.",
            "Compare their ids with `poma annotations check ... --scenes DATA`.",
        )
    make = _chunked if config.protocol is Protocol.uniscene3d else _drawn
    return [
        result
        for count in config.utterances
        for result in make(config, count, found, said, gallery, features, encode)
    ]


def _chunked(
    config: SceneRetrievalConfig,
    count: int,
    found: Annotations,
    said: dict[str, list[str]],
    gallery: Gallery,
    features: Features,
    encode: Encode,
) -> list[BenchmarkResult]:
    """The follow-up's protocol."""
    made = chunk_queries(said, count, config.last_chunk)
    queries = [query for query in made if query.scene_id in gallery.views]
    if not queries:
        return []
    bank = list(dict.fromkeys(query.scene_id for query in queries))
    texts = encode([query.text for query in queries], True)
    of_scan = np.array([bank.index(query.scene_id) for query in queries])
    rooms = [room_of(scan) for scan in bank]
    results = []
    for answer in (SCAN, ROOM):
        columns = bank if answer == SCAN else list(dict.fromkeys(rooms))
        column_of = np.array([columns.index(name) for name in (bank if answer == SCAN else rooms)])
        target = column_of[of_scan]
        right = target[:, None] == np.arange(len(columns))
        references = {
            "chance": {f"R@{k}": min(k / len(columns), 1.0) for k in config.best},
            "ceiling of repeated texts": {
                f"R@{k}": ceiling([q.text for q in queries], target.tolist(), k) for k in config.best
            },
        }
        result = BenchmarkResult(
            f"scene retrieval by {_utterances(count)}, the right {answer}",
            file_names(config.files),
            {
                "name": config.protocol.value,
                "utterances": count,
                "last chunk": config.last_chunk.value,
                "views": f"first {config.views}" if config.views else "all",
                "ties": "against us",
            },
            {
                "queries": len(queries),
                "of them of fewer utterances": sum(query.sentences < count for query in queries),
                f"{answer}s in the bank": len(columns),
                "queries of scans that the data set lacks": len(made) - len(queries),
                "scans that it lacks": len(set(said) - set(gallery.views)),
                **_read(found),
            },
            references,
        )
        for name, views in features.views.items():
            scores = texts @ gallery.scene_features(views, bank, config.views).T
            best = np.stack([scores[:, column_of == c].max(axis=1) for c in range(len(columns))], axis=1)
            result.figures |= _figures(name, ranks(best, right), of_scan, len(bank), config)
        results.append(result)
    return results


def _figures(
    name: str, found: np.ndarray, of_scan: np.ndarray, scans: int, config: SceneRetrievalConfig
) -> dict[str, dict[str, Figure]]:
    """R@k and MRR of an encoder as exact means over queries; in a row of its own as the public code's mean
    of batches."""
    hits = {f"R@{k}": (found <= k).astype(float) for k in config.best} | {"MRR": 1.0 / found}
    rows: dict[str, dict[str, Figure]] = {
        name: {c: mean_over_scenes(values, of_scan, scans, config.bootstrap) for c, values in hits.items()}
    }
    if batch := config.batch_mean:
        rows[f"{name}, mean of batches of {batch}"] = {c: batch_mean(v, batch) for c, v in hits.items()}
    return rows


def _drawn(
    config: SceneRetrievalConfig,
    count: int,
    found: Annotations,
    said: dict[str, list[str]],
    gallery: Gallery,
    features: Features,
    encode: Encode,
) -> list[BenchmarkResult]:
    """Our protocol: the one of captions (`poma3d.evaluate.retrieval`), with the files' utterances."""
    scans = list(gallery.views)
    queries = retrieval.draw_queries(
        [said.get(scan, []) for scan in scans], count, config.queries_per_scene, config.seed
    )
    texts = encode(queries.texts, True)
    short = sum(len(said.get(scans[i], [])) < count for i in queries.target.tolist())
    result = BenchmarkResult(
        f"scene retrieval by {_utterances(count)}, the right scan",
        file_names(config.files),
        {
            "name": config.protocol.value,
            "utterances": count,
            "draws of each scan": config.queries_per_scene,
            "seed": config.seed,
            "ties": "by expectation",
        },
        {
            "queries": len(queries.texts),
            "of them of fewer utterances": short,
            "scans in the gallery": len(scans),
            "scans that the data set lacks": len(set(said) - set(scans)),
            **_read(found),
        },
        {
            "chance": {f"R@{k}": retrieval.chance(len(scans), k) for k in config.best},
            "ceiling of repeated texts": {
                f"R@{k}": ceiling(queries.texts, queries.target.tolist(), k) for k in config.best
            },
        },
    )
    for name, views in features.views.items():
        bank = gallery.scene_features(views, scans)
        hits = {k: retrieval.hits(texts, bank, queries.target, k) for k in config.best}
        result.figures[name] = {
            f"R@{k}": mean_over_scenes(values, queries.target, len(scans), config.bootstrap)
            for k, values in hits.items()
        }
    return [result]


def _utterances(count: int) -> str:
    return "one utterance" if count == 1 else f"{count} joined utterances"


def _read(found: Annotations) -> dict[str, int]:
    """What the reader left out."""
    bad = {"bad rows": len(found.problems)} if found.problems else {}
    return {
        "rows read": len(found.rows),
        **bad,
        **{f"rows left out ({why})": n for why, n in found.left_out.items()},
    }
