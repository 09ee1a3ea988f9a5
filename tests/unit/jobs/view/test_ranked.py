"""Which views a ranked page shows."""

from __future__ import annotations

import numpy as np

from jobs.view.ranked import best_views
from jobs.view.scene import ViewOf


def test_every_text_keeps_its_best_view() -> None:
    cosines = np.array([[0.9, 0.0], [0.8, 0.1], [0.7, 0.2], [0.0, 0.9]])
    views = [ViewOf(0, v) for v in range(4)]
    assert best_views(views, cosines, 2) == [ViewOf(0, 0), ViewOf(0, 3)]
    assert best_views(views, cosines, 9) == views
