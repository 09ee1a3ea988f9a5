"""The table of `benchmarks.llm rooms`: shares by type, the majority, and what the scene adds."""

from __future__ import annotations

import torch

from benchmarks.llm import rooms, speed
from poma3d.annotations.rows import Question


def question(scene: str, number: int, kind: str, answer: str) -> Question:
    return Question(scene, f"{scene}-{number}", "?", (answer,), question_type=kind)


def test_shares_are_of_whole_answers_and_the_gain_is_paired() -> None:
    asked = [question(scene, i, "count", "two" if i else "one") for scene in "ab" for i in range(2)]
    training = [*asked, question("c", 0, "count", "two")]
    right = {q.question_id: q.answers[0] for q in asked}
    found = {
        (rooms.SCENE, 0): right,
        (rooms.NO_SCENE, 0): dict.fromkeys(right, "two"),
        (rooms.SCENE, 1): {**right, "a-0": "one chair"},
        (rooms.NO_SCENE, 1): dict.fromkeys(right, "two"),
    }
    lines = rooms.table(found, training, asked).splitlines()
    assert lines[2] == "| all (4) | 87.5 [100.0, 100.0] | 50.0 [50.0, 50.0] | 50.0 |"
    assert lines[-1].startswith("scene over no scene, 2 seeds: +37.5 points [")


def test_all_arms_of_the_speed_have_the_same_loss() -> None:
    """Of one micro-batch, all read the same tokens and labels."""
    sizes = speed.Sizes(width=32, layers=1, vocabulary=64, global_batch=2, micro_batch=2)
    stage = speed.model(sizes).train()
    batch = stage.fake_batch(2)
    with torch.no_grad():
        encoded = stage(batch)
        expected = encoded.sums["answer"] / encoded.counts["answer"]
        for lean in (False, True):
            bare = speed._Bare(speed._llm(sizes), stage.projector, lean)  # type: ignore[arg-type]
            loss = bare(**speed._collated(stage, batch))
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
