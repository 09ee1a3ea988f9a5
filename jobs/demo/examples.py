"""Retrieval examples for the demo's report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.demo.report import Example, Examples, Found, FoundBy
from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.measure import MODEL, SCENE_QUERY, TEACHER, Features, encode_queries, query_sets
from poma3d.evaluate import retrieval
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample

SHOWN_ENCODERS = (MODEL, TEACHER)
DRAWN = 5
"""Queries."""
BEST = 5
"""Scenes of each."""


def examples(
    job: EvaluateJob,
    samples: Sequence[Sample],
    features: Features,
    teacher: Teacher,
    thumbnails: Sequence[np.ndarray],
) -> Examples | None:
    """Evenly spaced scene captions with the scenes that this encoder and the teacher find for them; a hit of
    this encoder's where the draw has none. None where no scene has a caption.

    Args:
        thumbnails: uint8 [h, w, 3] of each scene.
    """
    queries = query_sets(job, samples).get(SCENE_QUERY)
    if queries is None:
        return None
    texts = retrieval.normalise(encode_queries(teacher, queries.texts))
    galleries = {
        name: retrieval.scene_features(features.views[name], features.view_valid)
        for name in SHOWN_ENCODERS
        if name in features.views
    }
    scores = {name: texts @ gallery.T for name, gallery in galleries.items()}
    order = {name: retrieval.ranking(texts, gallery, len(samples)) for name, gallery in galleries.items()}
    # Of the right scene, per query.
    place = {name: (of == queries.target[:, None]).argmax(axis=1) + 1 for name, of in order.items()}

    def found_by(name: str, q: int) -> FoundBy:
        places = list(range(1, min(BEST, len(samples)) + 1))
        if (right := int(place[name][q])) not in places:
            places.append(right)
        found = []
        for at in places:
            scene = int(order[name][q, at - 1])
            score = float(scores[name][q, scene])
            found.append(Found(samples[scene].scene_id, at, score, at == right, thumbnails[scene]))
        return FoundBy(name, right, found)

    def example(q: int) -> Example:
        return Example(queries.texts[q], [found_by(name, q) for name in scores])

    count = len(queries.texts)
    drawn = np.unique(np.linspace(0, count - 1, min(DRAWN, count)).astype(int)).tolist()
    hits = {name: int((of[drawn] <= BEST).sum()) for name, of in place.items()}
    by_chance = len(drawn) * min(BEST / len(samples), 1.0)
    note = (
        f"{len(drawn)} of {count} scene captions, evenly spaced and not chosen by how they went. The right "
        f"scene is framed, and comes last where it is not among the {BEST} best. It is among them for "
        + ", ".join(f"{n} of {len(drawn)} ({name})" for name, n in hits.items())
        + f"; by chance for {by_chance:.1f}."
    )
    hit_queries = np.flatnonzero(place[MODEL] <= BEST)
    a_hit = example(int(hit_queries[0])) if not hits[MODEL] and len(hit_queries) else None
    return Examples([example(q) for q in drawn], note, a_hit)
