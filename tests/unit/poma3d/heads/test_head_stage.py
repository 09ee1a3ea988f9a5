"""The head as a stage: what is drawn belongs to the sample; what counts; what is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poma3d.annotations.poses import upright_agent
from poma3d.heads.network import answer_loss, multi_hot
from poma3d.heads.stage import CELL_COUNT, KEPT, SITUATION
from poma3d.seen.scenes import CELLS, POSITIONS
from tests.helpers import tiny
from tests.helpers.downstream import heads, scenes

ROWS = 6


def batch(seed: int = 0) -> dict[str, Any]:
    made = heads.stage().fake_batch(ROWS, seed)
    made["text_count"] = torch.full((ROWS,), heads.SHAPE.texts, dtype=torch.int32)
    return made


def rows(whole: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    return {k: [v[i] for i in chosen] if isinstance(v, list) else v[chosen] for k, v in whole.items()}


def loss(stage: Any, of: dict[str, Any]) -> float:
    return float(stage(of).sums["answer"].detach())


def test_the_loss_of_a_sample_is_the_same_in_any_company() -> None:
    """Dropout and situations are of the sample and the epoch."""
    stage, whole = heads.stage().train(), batch()
    alone = sum(loss(stage, rows(whole, [i])) for i in range(ROWS))
    assert loss(stage, whole) == pytest.approx(alone, rel=1e-5)
    assert loss(stage, rows(whole, [5, 3, 1, 0, 2, 4])) == pytest.approx(alone, rel=1e-5)


def test_another_epoch_draws_anew() -> None:
    stage, whole = heads.stage().train(), batch()
    later = {**whole, "epoch": whole["epoch"] + 1}
    assert loss(stage, whole) != loss(stage, later)
    assert loss(heads.stage().train(), whole) == loss(stage, whole)


def test_all_situations_are_drawn_and_evaluation_takes_the_first() -> None:
    stage, whole = heads.stage(dropout=0.0), batch()
    with torch.no_grad():
        targets = multi_hot(whole["answers"], heads.CLASSES)
        texts = [torch.full((ROWS,), text) for text in range(heads.SHAPE.texts)]
        by_text = torch.stack([answer_loss(stage.answer(whole, text).logits, targets) for text in texts])
        stage.eval()
        assert loss(stage, whole) == pytest.approx(float(by_text[0].sum()), rel=1e-5)
        stage.train()
        seen = set()
        for epoch in range(20):
            of_one = rows({**whole, "epoch": whole["epoch"] + epoch}, [0])
            seen.add(int((by_text[:, 0] - loss(stage, of_one)).abs().argmin()))
    assert seen == {0, 1, 2}


def test_what_is_drawn_is_drawn_once_on_the_host() -> None:
    stage, whole = heads.stage().train(), batch()
    prepared = stage.prepare(whole)
    assert stage.prepare(prepared) is prepared
    assert prepared[SITUATION].shape == (ROWS,)
    assert prepared[KEPT].shape == (ROWS, stage.head_config.hidden)
    expected = loss(stage, whole)
    other = {**prepared, "epoch": prepared["epoch"] + 1}  # nothing is drawn again
    assert loss(stage, other) == loss(stage, prepared) == expected
    evaluated = stage.eval().prepare(whole)
    assert KEPT not in evaluated
    assert not evaluated[SITUATION].any()


def test_padding_counts_in_no_loss() -> None:
    stage, whole = heads.stage().train(), batch()
    whole["sample_valid"][2:] = False
    encoded = stage(whole)
    assert int(encoded.counts["answer"]) == 2
    assert float(encoded.sums["answer"]) == pytest.approx(loss(stage, rows(whole, [0, 1])), rel=1e-5)
    assert not stage(whole, features_only=True).sums


def test_padding_of_texts_is_not_read() -> None:
    stage, whole = heads.stage(dropout=0.0).eval(), batch()
    other = {**whole, "tokens": whole["tokens"].clone()}
    beyond = torch.arange(heads.SHAPE.tokens) >= whole["token_count"][..., None]
    other["tokens"][beyond] = 1
    with torch.no_grad():
        assert loss(stage, whole) == pytest.approx(loss(stage, other), rel=1e-6)


def test_a_frozen_tower_is_not_trained_and_an_unused_pooler_never() -> None:
    trained = {n for n, p in heads.stage().named_parameters() if p.requires_grad}
    assert any(name.startswith("tower.") for name in trained)
    assert not any("pooler" in name for name in trained)
    frozen = heads.stage(train=False)
    assert {n.split(".")[0] for n, p in frozen.named_parameters() if p.requires_grad} == {"head"}
    frozen.train()
    loss_of = frozen(batch()).sums["answer"]
    loss_of.backward()
    assert all(p.grad is None for n, p in frozen.named_parameters() if n.startswith("tower."))


def test_groups_hold_every_trained_parameter_once() -> None:
    stage = heads.stage()
    listed = [p for group in stage.param_groups(0.1) for p in group["params"]]
    wanted = [p for p in stage.parameters() if p.requires_grad]
    assert sorted(map(id, listed)) == sorted(map(id, wanted))
    decayed = {p.ndim for group in stage.param_groups(0.1) if group["weight_decay"] for p in group["params"]}
    assert decayed == {2}


def test_a_head_without_a_question_does_not_read_it() -> None:
    stage, whole = heads.stage(inputs="views").eval(), batch()
    other = {**whole, "tokens": whole["tokens"].flip(0)}
    with torch.no_grad():
        assert loss(stage, whole) == loss(stage, other)
    blind = heads.stage(inputs="question").eval()
    with torch.no_grad():
        assert loss(blind, whole) == loss(blind, {**whole, "views": whole["views"] * 2})


def test_questions_about_a_scene_share_one_pass_of_its_encoder() -> None:
    stage = heads.encoder_stage(dropout=0.0)
    store = stage.seen.scenes if stage.seen is not None else None
    assert isinstance(store, scenes.MemoryScenes)
    asked = scenes.by_scene(stage.fake_batch(ROWS), [2, 0, 2, 2, 0, 2])
    prepared = stage.prepare(asked)
    assert store.asked == [[0, 2]]
    assert prepared["depth"].shape[0] == 2
    seen = stage.encoded(prepared)
    assert seen["views"].shape == (ROWS, store.shape.views, tiny.JOINT)
    alone = stage.encode({name: torch.from_numpy(v[[2]]) for name, v in store.columns.items()})[0]
    for row in (0, 2, 3, 5):
        torch.testing.assert_close(seen["views"][row], alone, rtol=1e-5, atol=1e-5)
    assert seen["view_valid"][1].tolist() == [1, 0, 0]  # scene 0 has one view
    apart = sum(loss(stage, scenes.by_scene(rows(stage.fake_batch(ROWS), [i]), [s]))
                for i, s in enumerate([2, 0, 2, 2, 0, 2]))  # fmt: skip
    assert loss(stage, asked) == pytest.approx(apart, rel=1e-4)


def quarter_turn() -> torch.Tensor:
    """World -> somebody who looks along y."""
    return torch.from_numpy(upright_agent(np.zeros(3), np.pi / 2))


@pytest.mark.parametrize("trained", [False, True])
def test_cells_lie_where_whoever_asks_sees_them(trained: bool) -> None:
    stage = heads.cell_stage(trained, dropout=0.0).eval()
    asked = scenes.by_scene(stage.fake_batch(3), [1, 1, 1])
    asked["agent"] = torch.stack([torch.eye(3, 4), torch.eye(3, 4), quarter_turn()])
    asked["tokens"][1], asked["tokens"][2] = asked["tokens"][0], asked["tokens"][0]
    asked["token_count"][:] = asked["token_count"][0]
    prepared = stage.prepare(asked)
    found, turned = prepared[POSITIONS][0], prepared[POSITIONS][2]
    assert torch.equal(found, prepared[POSITIONS][1])
    torch.testing.assert_close(turned[:, 0], found[:, 1])  # what was to the left is ahead
    torch.testing.assert_close(turned[:, 1], -found[:, 0])
    with torch.no_grad():
        logits = stage.answer(stage.encoded(prepared), prepared[SITUATION]).logits
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_the_patches_of_a_scene_are_pooled_once_for_all_its_questions() -> None:
    stage = heads.cell_stage()
    prepared = stage.prepare(scenes.by_scene(stage.fake_batch(ROWS), [2, 0, 2, 2, 0, 2]))
    assert len(prepared[CELLS]) == len(prepared["patches"]) == 2
    for scene, asked in ((0, [1, 4]), (1, [0, 2, 3, 5])):
        assert {prepared[CELL_COUNT][i].item() for i in asked} == {prepared[CELLS][scene].max().item() + 1}


def test_a_scene_without_depth_has_no_cells_and_answers_as_alone() -> None:
    stage = heads.cell_stage(dropout=0.0).eval()
    assert stage.seen is not None
    assert isinstance(stage.seen.scenes, scenes.MemoryPoints)
    stage.seen.scenes.inner.columns["depth"][2] = 0
    both, alone = (
        stage.prepare(scenes.by_scene(rows(stage.fake_batch(2), chosen), numbers))
        for chosen, numbers in (([0, 1], [1, 2]), ([1], [2]))
    )
    assert both[CELL_COUNT].tolist()[1] == 0
    with torch.no_grad():
        found, expected = (
            stage.answer(stage.encoded(each), each[SITUATION]).logits for each in (both, alone)
        )
    assert found.isfinite().all()
    torch.testing.assert_close(found[1:], expected, rtol=1e-5, atol=1e-5)


def test_a_cell_of_no_sample_is_not_looked_at() -> None:
    """The shorter of two scenes is padded to the cells of the longer, and answers as it does alone."""
    stage = heads.cell_stage(dropout=0.0).eval()
    both = scenes.by_scene(stage.fake_batch(2), [0, 1])  # scene 0 has one view
    prepared = stage.prepare(both)
    counts = prepared[CELL_COUNT].tolist()
    assert counts[0] < counts[1]
    with torch.no_grad():
        answered = stage.answer(stage.encoded(prepared), prepared[SITUATION])
        alone = stage.prepare(scenes.by_scene(rows(stage.fake_batch(2), [0]), [0]))
        expected = stage.answer(stage.encoded(alone), alone[SITUATION])
    assert not answered.view_weights[0, counts[0] :].any()
    torch.testing.assert_close(answered.logits[:1], expected.logits, rtol=1e-5, atol=1e-5)


def test_a_trained_encoder_has_a_learning_rate_of_its_own() -> None:
    stage = heads.encoder_stage(lr_scale=0.25)
    groups = {group["name"]: group for group in stage.param_groups(0.1)}
    assert {name: group["lr_scale"] for name, group in groups.items()} == {
        "matrices": 1.0, "others": 1.0, "encoder matrices": 0.25, "encoder others": 0.25,
    }  # fmt: skip
    assert stage.encoder is not None
    trained = {id(p) for p in stage.encoder.parameters() if p.requires_grad}
    listed = [id(p) for name, group in groups.items() if "encoder" in name for p in group["params"]]
    assert set(listed) == trained
    assert len(listed) == len(trained)
    stage(scenes.by_scene(stage.fake_batch(2), [0, 1])).sums["answer"].backward()
    assert not [n for n, p in stage.encoder.named_parameters() if p.requires_grad and p.grad is None]
