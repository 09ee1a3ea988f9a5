"""The probe against known answers, a ranking by lot and a naive average precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.evaluate.config import BootstrapConfig, ProbeConfig
from poma3d.evaluate.probe import average_precision, fit_logistic, named_classes, probe, score, split_scenes

CFG = ProbeConfig(bootstrap=BootstrapConfig(draws=200))
SCENES, VIEWS = 80, 4
SCENE = np.arange(SCENES).repeat(VIEWS)


def test_classes_are_named_by_whole_words_and_phrases() -> None:
    classes = {"chair": ["chair", "chairs"], "office chair": ["office chair"], "arm": ["arm"]}
    named = {
        c: named_classes([c], classes).tolist() for c in ("An armchair", "two Chairs.", "an office  chair")
    }
    assert named == {
        "An armchair": [False, False, False],
        "two Chairs.": [False, True, False],
        "an office  chair": [False, True, True],
    }
    apart = named_classes(["a chair in an office", "chair"], {"x": ["office chair", "chair chair"]})
    assert not apart.any(), "a phrase stands in one caption"
    assert named_classes([], classes).tolist() == [False] * 3


def naive_average_precision(scores: list[int], labels: list[bool]) -> float:
    """Sum over thresholds of precision x step of recall."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for s, label in zip(scores, labels, strict=True) if s >= threshold]
        recall = sum(taken) / sum(labels)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_agrees_with_the_naive_one(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [r[0] for r in rows], [r[1] for r in rows]
    found = average_precision(np.array(scores, float), np.array(labels))
    if any(labels):
        assert found[0] == pytest.approx(naive_average_precision(scores, labels))
    else:
        assert np.isnan(found[0])


def test_weights_are_repeated_rows() -> None:
    scores, labels = np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False])
    weights = np.array([[2, 0, 1, 3], [1, 1, 1, 1]])
    repeated = np.repeat(np.arange(4), weights[0])
    expected = [average_precision(scores[repeated], labels[repeated])[0], (1 + 2 / 3) / 2]
    assert average_precision(scores, labels, weights.astype(float)).tolist() == pytest.approx(expected)


def test_separable_classes_score_one() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(SCENE), 6))
    result = probe(features, features[:, :3] > 0.3, SCENE, split_scenes(SCENES, CFG), CFG)
    assert result.macro.value > 0.99
    assert result.macro.low > 0.98


def test_unrelated_features_score_the_base_rate() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(len(SCENE), 8)), rng.random((len(SCENE), 5)) < 0.3
    result = probe(features, labels, SCENE, split_scenes(SCENES, CFG), CFG)
    assert result.base_rate == pytest.approx(0.3, abs=0.05)
    assert result.macro.low - 0.03 <= result.base_rate <= result.macro.high


def test_constant_features_score_exactly_the_base_rate() -> None:
    labels = np.random.default_rng(0).random((len(SCENE), 4)) < 0.4
    result = probe(np.ones((len(SCENE), 8)), labels, SCENE, split_scenes(SCENES, CFG), CFG)
    assert result.macro.value == pytest.approx(result.base_rate)


def test_scale_and_offset_of_a_feature_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(SCENE), 4))
    labels = features[:, :2] + rng.normal(size=(len(SCENE), 2)) > 0
    held_out = split_scenes(SCENES, CFG)
    plain = probe(features, labels, SCENE, held_out, CFG).macro.value
    scaled = probe(features * [1e3, 1.0, 1e-3, 7.0] + 5.0, labels, SCENE, held_out, CFG).macro.value
    assert scaled == pytest.approx(plain, abs=1e-3)


def test_classes_without_both_kinds_of_rows_are_left_out() -> None:
    scores = np.random.default_rng(0).normal(size=(len(SCENE), 3))
    labels = np.stack([scores[:, 0] > 0, np.ones(len(SCENE), bool), np.zeros(len(SCENE), bool)], axis=1)
    result = score(scores, labels, SCENE, CFG)
    assert result.macro.value == 1.0
    assert np.isnan(result.per_class[1:]).all()
    with pytest.raises(ValueError, match="no class"):
        score(scores[:, 1:], labels[:, 1:], SCENE, CFG)


def test_logistic_regression_reaches_the_stationary_point() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.random((200, 2)) < 0.5
    weight, bias = fit_logistic(x, y, CFG)
    residual = 1 / (1 + np.exp(-(x @ weight + bias))) - y
    assert np.abs(x.T @ residual / 200 + 2 * CFG.l2 * weight).max() < 1e-5
    assert np.abs(residual.mean(axis=0)).max() < 1e-5


def test_no_scene_is_on_both_sides_and_the_split_is_seeded() -> None:
    mask = split_scenes(10, CFG)
    assert mask.sum() == 5
    assert (mask == split_scenes(10, CFG)).all()
    assert (mask != split_scenes(10, ProbeConfig(seed=3))).any()
    with pytest.raises(ValueError, match="empty"):
        split_scenes(1, CFG)


def test_diverged_features_are_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        probe(
            np.full((len(SCENE), 2), np.inf),
            np.ones((len(SCENE), 1), bool),
            SCENE,
            split_scenes(SCENES, CFG),
            CFG,
        )
