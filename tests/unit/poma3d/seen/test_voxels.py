"""Patches in cells: which, where, and how many; positions as an agent sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poma3d.annotations.poses import MSNN, SQA3D, WORLD, ScanFrame, agent_of
from poma3d.annotations.rows import Question
from poma3d.seen import voxels
from poma3d.seen.voxels import PatchPoints

QUARTER = (0.0, 0.0, float(np.sqrt(0.5)), float(np.sqrt(0.5)))
"""A quarter turn to the left."""


def asked(frame: str, position: tuple[float, float, float], turn: tuple[float, ...]) -> Question:
    return Question("s", "q", "?", ("a",), position=position, orientation=turn, frame=frame)  # type: ignore[arg-type]


def test_a_patch_is_where_its_points_are() -> None:
    points = torch.zeros(1, 4, 4, 3)
    points[0, 0, 0] = torch.tensor([1.0, 2.0, 3.0])  # the others of this patch have no depth
    points[0, 2:, 2:] = torch.arange(4.0).view(2, 2, 1) + 1
    found = voxels.patch_points(points, 4)
    assert found.valid.tolist() == [[True, False, False, True]]
    assert found.points[0, 0].tolist() == [1.0, 2.0, 3.0]
    assert found.points[0, 3].tolist() == [2.5, 2.5, 2.5]
    with pytest.raises(ValueError, match="no 3 square patches"):
        voxels.patch_points(points, 3)


def test_cells_hold_what_lies_in_them_and_the_fullest_are_kept() -> None:
    points = np.array([[[0.1, 0, 0], [0.3, 0, 0], [-0.1, 0, 0], [0.15, 0, 0], [9, 9, 9]]], np.float32)
    valid = np.array([[True, True, True, True, False]])
    found = voxels.cells(PatchPoints(points, valid), np.array([True]), 0.2, 8)
    assert found.of_patch.tolist() == [1, 2, 0, 1, -1]  # in the order of space
    np.testing.assert_allclose(found.positions[:, 0], [-0.1, 0.125, 0.3], atol=1e-6)
    most = voxels.cells(PatchPoints(points, valid), np.array([True]), 0.2, 1)
    assert most.of_patch.tolist() == [0, -1, -1, 0, -1]
    unseen = voxels.cells(PatchPoints(points, valid), np.array([False]), 0.2, 8)
    assert len(unseen.positions) == 0
    assert set(unseen.of_patch.tolist()) == {-1}


def test_pooling_is_the_mean_of_a_cell() -> None:
    tokens = torch.arange(8.0).view(1, 4, 2)
    pooled = voxels.pool(tokens, torch.tensor([[1, -1, 1, 0]]), 3)
    assert pooled.tolist() == [[[6.0, 7.0], [2.0, 3.0], [0.0, 0.0]]]


def test_positions_tell_places_apart_and_keep_their_size() -> None:
    places = torch.tensor([[[0.0, 0, 0], [0.2, 0, 0], [0, 0.2, 0], [5.0, 1, 2]]])
    found = voxels.sines(places, 32, 0.4, 40.0)
    assert found.shape == (1, 4, 32)
    assert found.abs().max() <= 1
    assert (torch.cdist(found[0], found[0]) + torch.eye(4) > 0.5).all()
    assert not found[..., 30:].any()  # 5 waves of sine and cosine on 3 axes
    with pytest.raises(ValueError, match="it takes 6 or more"):
        voxels.sines(places, 5, 0.4, 40.0)


@pytest.mark.parametrize(
    ("frame", "scan", "ahead"),
    [
        (WORLD, None, [1.0, 3.0, 0.5]),
        (MSNN, None, [1.0, 3.0, 0.5]),
        # It faces its own -x, in the raw mesh whose box has its centre at (1, 0, 0); no alignment.
        (SQA3D, ScanFrame(None, np.array([1.0, 0.0, 0.0])), [2.0, 1.0, 0.5]),
    ],
)
def test_what_lies_ahead_is_ahead_of_the_agent(
    frame: str, scan: ScanFrame | None, ahead: list[float]
) -> None:
    """Somebody at (1, 2, 0), turned to the left by a quarter: a metre ahead, half a metre up."""
    agent = agent_of(asked(frame, (1.0, 2.0, 0.0), QUARTER), scan)
    found = voxels.in_agent_frame(np.array([ahead]), agent)
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.5]], atol=1e-6)


def test_without_what_is_known_of_the_scan_there_is_no_pose() -> None:
    with pytest.raises(ValueError, match="axisAlignment"):
        agent_of(asked(SQA3D, (0.0, 0.0, 0.0), QUARTER), None)
    with pytest.raises(ValueError, match="has no pose"):
        agent_of(Question("s", "q", "?", ()), None)
