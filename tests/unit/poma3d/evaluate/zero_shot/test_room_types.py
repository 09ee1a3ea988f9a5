"""Room types: ties are wrong, no room stands on both sides of a split."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.evaluate.config import ProbeConfig
from poma3d.evaluate.zero_shot.room_types import few_shot, few_shot_split, is_best, type_features


def test_a_tie_for_the_best_type_is_wrong() -> None:
    scores = np.array([[0.3, 0.2, 0.1], [0.3, 0.3, 0.1], [0.1, 0.3, 0.2]])
    assert is_best(scores, np.array([0, 0, 0])).tolist() == [True, False, False]


def test_a_type_is_the_mean_of_its_sentences() -> None:
    texts = np.array([[[2.0, 0], [0, 0.5]], [[0, 3.0], [0, 1]]])
    np.testing.assert_allclose(type_features(texts), [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1]])


@given(seed=st.integers(0, 1000), shots=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_no_room_is_on_both_sides_and_each_type_has_its_shots(seed: int, shots: int) -> None:
    rng = np.random.default_rng(seed)
    room = [f"room{i}" for i in rng.integers(0, 12, 40)]
    kind_of = {name: int(rng.integers(0, 3)) for name in set(room)}
    label = np.array([kind_of[name] for name in room])
    learn, score = few_shot_split(label, room, shots, rng)
    assert not {room[i] for i in np.flatnonzero(learn)} & {room[i] for i in np.flatnonzero(score)}
    for kind in range(3):
        rooms = {name for name in room if kind_of[name] == kind}
        learnt = [room[i] for i in np.flatnonzero(learn & (label == kind))]
        assert len(learnt) == len(set(learnt)) == (shots if len(rooms) > shots else 0)
        assert (score & (label == kind)).any() == (len(rooms) > shots)


def test_few_scenes_teach_types_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), 10)
    features = np.eye(3)[label] + rng.normal(0, 0.05, (30, 3))
    learn, score = few_shot_split(label, [f"r{i}" for i in range(30)], 2, rng)
    probe = ProbeConfig()
    assert few_shot(features, label, learn, score, probe).all()
    assert not few_shot(np.ones((30, 3)), label, learn, score, probe).any(), "a constant encoder ties"
