"""`benchmarks.questions.located`: a caption is said at the camera of its view, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.questions.located import said_at_views
from jobs.evaluate.benchmark.places import METRES, located
from jobs.evaluate.measure import MODEL
from poma3d.annotations.poses import rotation_matrix
from poma3d.evaluate.bootstrap import Estimate
from poma3d.evaluate.config import BootstrapConfig
from poma3d.evaluate.zero_shot.config import LocalisationConfig
from poma3d.sample import Sample
from tests.helpers.view.benchmarks import encode, features, scenes

CONFIG = LocalisationConfig(best=[1, 2], bootstrap=BootstrapConfig(draws=20))


def rooms() -> list[Sample]:
    """Two rooms; the last caption of a view is the number of the view."""
    made = scenes("a", "b")
    for room in made:
        room.view_captions = [["a room", str(view)] for view in range(4)]
        room.pose = room.pose.copy()
        room.pose[:, :, 3] += np.arange(4)[:, None]
    return made


def test_the_camera_is_that_of_the_view() -> None:
    room = rooms()[0]
    room.view_captions[1] = []
    room.view_valid = np.array([1, 1, 1, 0], np.uint8)
    rows = said_at_views([room])
    assert [row.text for row in rows] == ["0", "2"], "views without a caption and repeats say nothing"
    for row, view in zip(rows, (0, 2), strict=True):
        np.testing.assert_allclose(row.position, room.pose[view, :, 3], atol=1e-6)
        np.testing.assert_allclose(rotation_matrix(row.rotation), room.pose[view, :, :3], atol=1e-6)


@pytest.mark.parametrize(("of_view", "right"), [([0, 1, 2, 3], 1.0), ([1, 2, 3, 0], 0.0)])
def test_an_encoder_that_knows_its_views_is_right(of_view: list[int], right: float) -> None:
    made = rooms()
    result = located(
        said_at_views(made), ["captions"], CONFIG, "held_out", made, features(made, [of_view] * 2), encode
    )
    found = result.figures[MODEL]["R@1"]
    assert isinstance(found, Estimate)
    assert found.value == right
    assert result.references["chance"]["R@1"] == 0.25
    assert (result.figures[MODEL][METRES] == 0.0) == (right == 1.0)
