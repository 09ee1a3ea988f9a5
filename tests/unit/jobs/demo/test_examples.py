"""Queries of the report: an even draw, the right room shown, the teacher beside, a hit if none is drawn."""

from __future__ import annotations

import numpy as np

from jobs.demo.examples import BEST, DRAWN, examples
from jobs.demo.report import Examples
from jobs.evaluate.config import EvaluateJob
from jobs.evaluate.measure import MODEL, TEACHER, Features
from poma3d.pretrained.config import CLIP
from tests.helpers.view.scenes import sample

SCENES = 12


class Teacher:
    """Texts as unit vectors along the axis that they name."""

    kind = CLIP

    def encode_texts(self, texts: list[str], long: bool = False) -> np.ndarray:
        return np.eye(SCENES, dtype=np.float32)[[int(text) for text in texts]]


def found(shift: int, right: int | None = None) -> Examples:
    """Of an encoder that thinks scene i to be i + `shift`, `right` alone rightly, and of a teacher that errs
    nowhere."""
    samples = [sample(f"room-{i}", scene_captions=[str(i)]) for i in range(SCENES)]
    nearness = -np.abs(np.arange(SCENES)[:, None] - np.arange(SCENES) - 0.1) + SCENES
    wrong = np.roll(nearness, shift, axis=0)
    if right is not None:
        wrong[:, right] = np.eye(SCENES)[right] * 2 * SCENES
    views = {MODEL: wrong, TEACHER: np.eye(SCENES)}
    features = Features({name: of[:, None, :] for name, of in views.items()}, np.ones((SCENES, 1)))
    pictures = [np.zeros((2, 2, 3), np.uint8)] * SCENES
    shown = examples(EvaluateJob(), samples, features, Teacher(), pictures)  # type: ignore[arg-type]
    assert shown is not None
    return shown


def test_the_draw_is_even_and_every_row_shows_the_right_room() -> None:
    shown = found(shift=6)
    assert [example.query for example in shown.drawn] == ["0", "2", "5", "8", "11"]
    assert len(shown.drawn) == DRAWN
    for example in shown.drawn:
        model, teacher = example.rows
        assert (model.encoder, teacher.encoder) == (MODEL, TEACHER)
        assert [each.scene_id for each in teacher.found if each.right] == [f"room-{example.query}"]
        assert teacher.place == 1
        (right,) = [each for each in model.found if each.right]
        assert (right.scene_id, right.place) == (f"room-{example.query}", model.place)
        assert [each.place for each in model.found[:BEST]] == list(range(1, BEST + 1))
        scores = [each.score for each in model.found]
        assert scores == sorted(scores, reverse=True)


def test_a_hit_is_shown_only_where_the_draw_has_none() -> None:
    shown = found(shift=6, right=3)
    drawn = [example.rows[0].place for example in shown.drawn]
    assert min(drawn) > BEST
    assert shown.a_hit is not None
    assert (shown.a_hit.query, shown.a_hit.rows[0].place) == ("3", 1)
    assert f"0 of 5 ({MODEL}), 5 of 5 ({TEACHER}); by chance for 2.1" in shown.note
    assert found(shift=0).a_hit is None
