"""Known answers, and the two encoders that must not fool the metric: a random and a collapsed one."""

import numpy as np
import pytest

from poma3d.evaluate.bootstrap import difference, mean_over_scenes, scene_weights
from poma3d.evaluate.config import BootstrapConfig, RetrievalConfig
from poma3d.evaluate.retrieval import (
    chance,
    draw_queries,
    hits,
    normalise,
    ranking,
    recall,
    recalls,
    scene_features,
)

FEW_DRAWS = BootstrapConfig(draws=400)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_recall_by_hand() -> None:
    gallery = np.eye(4)
    queries = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1.0]])
    target = np.array([0, 1, 2, 3])
    for best in (1, 2, 3, 4):
        assert hits(queries, gallery, target, best).tolist() == [1.0] * best + [0.0] * (4 - best)
    assert recall(queries, gallery, target, 1, FEW_DRAWS).value == 0.25


def test_recall_agrees_with_a_naive_ranking(rng: np.random.Generator) -> None:
    queries, gallery = rng.normal(size=(30, 8)), rng.normal(size=(12, 8))
    target = rng.integers(12, size=30)
    for best in (1, 3, 12):
        for q, hit in enumerate(hits(queries, gallery, target, best)):
            cosines = [(s / np.linalg.norm(s)) @ (queries[q] / np.linalg.norm(queries[q])) for s in gallery]
            top = sorted(range(12), key=lambda s: -cosines[s])[:best]
            assert hit == float(target[q] in top)
            assert ranking(queries, gallery, best)[q].tolist() == top


def test_perfect_features_recall_everything(rng: np.random.Generator) -> None:
    gallery = rng.normal(size=(128, 32))
    result = recalls(gallery, gallery, np.arange(128), RetrievalConfig(bootstrap=FEW_DRAWS))
    assert all((r.value, r.low, r.high) == (1.0, 1.0, 1.0) for r in result.values())


def test_collapsed_encoder_scores_exactly_chance(rng: np.random.Generator) -> None:
    # The noise is what a float32 forward pass of identical inputs leaves behind.
    gallery = np.ones((128, 32)) + 1e-8 * rng.normal(size=(128, 32))
    for best in (1, 5, 10):
        found = recall(rng.normal(size=(128, 32)), gallery, np.arange(128), best, FEW_DRAWS).value
        assert found == pytest.approx(chance(128, best), rel=1e-9)


def test_all_zero_features_score_chance() -> None:
    assert recall(np.zeros((10, 4)), np.zeros((10, 4)), np.arange(10), 5, FEW_DRAWS).value == 0.5


def test_random_features_are_within_the_interval_of_chance(rng: np.random.Generator) -> None:
    target = np.arange(256).repeat(4)
    result = recall(rng.normal(size=(1024, 16)), rng.normal(size=(256, 16)), target, 10, FEW_DRAWS)
    assert result.low <= chance(256, 10) <= result.high
    assert result.high - result.low < 0.06


def test_partial_ties_share_the_places_left() -> None:
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = hits(np.array([[1.0, 0.1]] * 2), gallery, np.array([0, 3]), 2)
    assert found.tolist() == [2 / 3, 0.0]


def test_diverged_features_are_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        hits(np.full((2, 2), np.nan), np.eye(2), np.arange(2), 1)


def test_scene_feature_is_the_mean_of_directions_of_valid_views() -> None:
    views = np.array([[[2.0, 0.0], [0.0, 5.0], [-9.0, -9.0]]])
    assert scene_features(views, np.array([[1, 1, 0]])) == pytest.approx(normalise(np.array([[1.0, 1.0]])))


def test_queries_join_distinct_utterances_and_are_seeded() -> None:
    said = [["a.", "b.", "c."], ["d."], []]
    queries = draw_queries(said, count=2, per_scene=5, seed=1)
    assert queries.target.tolist() == [0] * 5 + [1] * 5
    assert all(len(set(text.split())) == 2 for text in queries.texts[:5])
    assert queries.texts[5:] == ["d."] * 5
    assert queries.texts == draw_queries(said, count=2, per_scene=5, seed=1).texts
    assert queries.texts != draw_queries(said, count=2, per_scene=5, seed=2).texts


def test_interval_covers_the_truth_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    covered = 0
    for seed in range(100):
        values = (rng.random(200) < 0.3).astype(float)
        result = mean_over_scenes(values, np.arange(200), 200, BootstrapConfig(draws=300, seed=seed))
        covered += result.low <= 0.3 <= result.high
    assert 85 <= covered <= 100


def test_rows_of_one_scene_do_not_shrink_the_interval(rng: np.random.Generator) -> None:
    values = rng.random(50)
    once = mean_over_scenes(values, np.arange(50), 50, FEW_DRAWS)
    often = mean_over_scenes(values.repeat(10), np.arange(50).repeat(10), 50, FEW_DRAWS)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_paired_difference_is_narrower_than_either(rng: np.random.Generator) -> None:
    easy = rng.random(100)
    a = mean_over_scenes(easy + 0.1, np.arange(100), 100, FEW_DRAWS)
    b = mean_over_scenes(easy, np.arange(100), 100, FEW_DRAWS)
    gain = difference(a, b, 0.95)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="same draws"):
        difference(a, mean_over_scenes(easy, np.arange(100), 100, BootstrapConfig(draws=7)), 0.95)


def test_scene_weights_draw_every_scene_once_on_average() -> None:
    weights = scene_weights(20, FEW_DRAWS)
    assert (weights.sum(axis=1) == 20).all()
    assert weights.mean() == 1.0
