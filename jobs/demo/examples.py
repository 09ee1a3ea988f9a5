"""Retrieval examples for the demo's report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.demo.report import Example, Found
from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.measure import MODEL, SCENE_QUERY, Features, encode_queries, query_sets
from poma3d.evaluate import retrieval
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample


def examples(
    job: EvaluateJob,
    samples: Sequence[Sample],
    features: Features,
    teacher: Teacher,
    thumbnails: Sequence[np.ndarray],
    count: int = 4,
    best: int = 5,
) -> list[Example]:
    """Evenly spaced queries (not chosen by how well they went) with the scenes that they find."""
    queries = query_sets(job, samples)[SCENE_QUERY]
    texts = encode_queries(teacher, queries.texts)
    gallery = retrieval.scene_features(features.views[MODEL], features.view_valid)
    order = retrieval.ranking(texts, gallery, len(samples))
    scores = retrieval.normalise(texts) @ gallery.T
    out = []
    for q in np.linspace(0, len(queries.texts) - 1, count).astype(int):
        target = int(queries.target[q])
        found = [
            Found(samples[i].scene_id, float(scores[q, i]), i == target, thumbnails[i])
            for i in order[q, :best].tolist()
        ]
        out.append(Example(queries.texts[q], int(np.flatnonzero(order[q] == target)[0]) + 1, found))
    return out
