"""A held-out room for the demo's report: its page in 3D, with texts that the encoder locates in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jobs.evaluate.measure import MODEL, Features
from jobs.evaluate.texts import encode_texts
from jobs.shards.preview import PreviewConfig, draw_top_view, point_maps
from jobs.view.config import PageConfig
from jobs.view.page import Ranking, page_of
from jobs.view.scene import shown_scene, views_of
from poma3d.evaluate.retrieval import normalise
from poma3d.pretrained.teacher import Teacher
from poma3d.sample import Sample

TEXTS = 3
STILL_INCHES = 5.6


def room_page(
    samples: Sequence[Sample], features: Features, teacher: Teacher
) -> tuple[str, np.ndarray | None]:
    """The first held-out room that has captions, not chosen by how well it went, and its `still`; "" and None
    without any.

    Its texts are the last captions, which are the most particular, of views evenly spaced in it.
    """
    for index, sample in enumerate(samples):
        views = views_of([sample])
        said = [
            (place, sample.view_captions[each.view][-1])
            for place, each in enumerate(views)
            if sample.view_captions[each.view]
        ]
        if not said:
            continue
        spaced = np.unique(np.linspace(0, len(said) - 1, min(TEXTS, len(said))).round().astype(int))
        chosen = [said[i] for i in spaced.tolist()]
        texts = normalise(encode_texts(teacher, [text for _, text in chosen]))
        seen = normalise(features.views[MODEL][index][[each.view for each in views]])
        rankings = [
            Ranking(text, (seen @ texts[i]).tolist(), place) for i, (place, text) in enumerate(chosen)
        ]
        config = PageConfig()
        page = page_of(shown_scene(sample.scene_id, [sample], views, config), config, rankings)
        return page, still(sample)
    return "", None


def still(sample: Sample) -> np.ndarray:
    """The room from above with its cameras, uint8 [h, w, 4]: what is seen before its page has drawn it."""
    figure = Figure(figsize=(STILL_INCHES, STILL_INCHES), layout="constrained", facecolor="none")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_top_view(axes, sample, point_maps(sample), PreviewConfig().ceiling_m)
    axes.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
