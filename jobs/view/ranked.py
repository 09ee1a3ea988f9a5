"""The page of a scene whose views are ranked by something: cosines with texts, a head's attention.

Legend: n views of a scene, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.view.config import PageConfig
from jobs.view.page import COSINES, RankedBy, Ranking, page_of
from jobs.view.scene import ViewOf, shown_scene, views_of
from poma3d.sample import Sample


def ranked_page(
    scene_id: str,
    samples: Sequence[Sample],
    texts: Sequence[str],
    values: np.ndarray,
    config: PageConfig,
    note: str = "",
    ranked_by: RankedBy = COSINES,
) -> tuple[str, list[list[tuple[str, float]]]]:
    """The page, and each text's views with their values, best first.

    Args:
        samples: of the scene (`jobs.view.scene.find`).
        values: float [n, T] of all views of `samples` (`views_of`) for the texts.
        note: a sentence below the title.
        ranked_by: what the values are.
    """
    views = views_of(samples)
    chosen = best_views(views, values, config.views)
    kept = values[[views.index(each) for each in chosen]]
    scene = shown_scene(scene_id, samples, chosen, config)
    rankings = [Ranking(text, kept[:, t].tolist()) for t, text in enumerate(texts)]
    names = [view.name for view in scene.views]
    order = np.argsort(-kept, axis=0, kind="stable")
    ranked = [[(names[i], float(kept[i, t])) for i in order[:, t]] for t in range(len(texts))]
    return page_of(scene, config, rankings, note, ranked_by), ranked


def best_views(views: Sequence[ViewOf], values: np.ndarray, most: int) -> list[ViewOf]:
    """At most `most` views in their order, each among the best of one of the texts.

    Args:
        values: float [n, T].
    """
    ranks = np.argsort(np.argsort(-values, axis=0, kind="stable"), axis=0, kind="stable").min(axis=1)
    kept = np.sort(np.argsort(ranks, kind="stable")[:most])
    return [views[i] for i in kept.tolist()]
