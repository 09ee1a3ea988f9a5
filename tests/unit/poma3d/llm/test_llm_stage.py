"""A language model as a stage: a sample's loss is its own, packed or not; what is seen, drawn, trained,
saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poma3d.llm.config import FULL, LORA, PROJECTOR, AdapterConfig, LlmConfig
from poma3d.llm.model import load_llm
from poma3d.llm.stage import ConversationStage
from poma3d.pretrained.folder import UnusableModel
from tests.helpers.downstream import llm, scenes

ROWS = 4
ASKED = [0, 2, 2, 1]
KINDS = [llm.QWEN3, llm.QWEN3_VL, llm.ONEVISION]


def batch(stage: ConversationStage, seed: int = 0) -> dict[str, Any]:
    return scenes.by_scene(stage.fake_batch(ROWS, seed), ASKED)


def rows(whole: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    return {k: [v[i] for i in chosen] if isinstance(v, list) else v[chosen] for k, v in whole.items()}


@torch.no_grad()
def loss(stage: ConversationStage, of: dict[str, Any]) -> float:
    return float(stage(of).sums["answer"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", ["voxels", "patches", "views", "none"])
def test_the_loss_of_a_sample_is_the_same_in_any_company_packed_or_not(kind: str, tokens: str) -> None:
    stage = llm.stage(kind, tokens=tokens).train()
    whole = batch(stage)
    alone = [loss(stage, rows(whole, [i])) for i in range(ROWS)]
    assert loss(stage, whole) == pytest.approx(sum(alone), rel=1e-6)
    packed = llm.stage(kind, tokens=tokens, packed_tokens=400).train()
    assert packed.prepare(whole)["layout/ids"].shape == (1, 400)
    assert loss(packed, whole) == pytest.approx(sum(alone), rel=1e-6)
    for i in range(ROWS):  # each one's own, in the same rows
        only = {**whole, "sample_valid": torch.arange(ROWS) == i}
        assert loss(packed, only) == pytest.approx(alone[i], rel=1e-6)


def test_packing_gives_the_gradient_of_rows_apart() -> None:
    found = []
    for packed_tokens in (None, 60):
        stage = llm.stage(tune=FULL, trained=True, packed_tokens=packed_tokens).train()
        stage(batch(stage)).sums["answer"].backward()
        found.append({n: p.grad for n, p in stage.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_counts_are_of_tokens_or_of_samples() -> None:
    by_token, by_sample = llm.stage().train(), llm.stage(loss="samples").train()
    whole = batch(by_token)
    whole["sample_valid"][1:3] = False
    lengths = by_token.prepare(whole)["layout/label_count"][[0, 3]]
    assert float(by_token(whole).counts["answer"]) == float(lengths.sum())
    assert float(by_sample(whole).counts["answer"]) == 2
    apart = [loss(by_token, rows(whole, [i])) for i in (0, 3)]
    assert loss(by_token, whole) == pytest.approx(sum(apart), rel=1e-6)
    means = sum(each / float(n) for each, n in zip(apart, lengths, strict=True))
    assert loss(by_sample, whole) == pytest.approx(means, rel=1e-6)
    assert not by_token(whole, features_only=True).sums


def test_situations_and_answers_are_drawn_by_epoch_and_evaluation_takes_the_first() -> None:
    stage = llm.stage().train()
    whole = batch(stage)
    whole["prompts"][:], whole["answers"][:] = 2, 2
    seen = {loss(stage, rows({**whole, "epoch": whole["epoch"] + e}, [0])) for e in range(16)}
    assert len(seen) == 4
    first = {**whole, "prompts": whole["prompts"] * 0 + 1, "answers": whole["answers"] * 0 + 1}
    assert loss(stage, first) == loss(stage.eval(), whole)
    prepared = stage.prepare(whole)
    assert stage.prepare(prepared) is prepared


def test_a_view_and_a_pose_change_what_is_seen() -> None:
    stage = llm.stage().eval()
    whole = batch(stage)
    one = {**whole, "view": torch.ones_like(whole["view"])}
    of_all, of_one = (stage.prepare(rows(each, [2]))["scene/cells"] >= 0 for each in (whole, one))
    assert of_all.sum() > of_one.sum() > 0
    agent = whole["agent"].clone()
    agent[2, :, 3] += 1.0
    posed = {**whole, "agent": agent}
    assert loss(stage, rows(posed, [2])) != loss(stage, rows(whole, [2]))
    assert loss(stage, rows(posed, [1])) == loss(stage, rows(whole, [1]))


@pytest.mark.parametrize("tokens", ["patches", "views"])
def test_repeats_of_views_are_not_seen(tokens: str) -> None:
    """Scene 0 has one view; the others repeat it."""
    stage = llm.stage(tokens=tokens).eval()
    prepared = stage.prepare(batch(stage))
    per_view = stage.seen.patches if tokens == "patches" else 1
    places = (prepared["layout/sample"] == 0).sum()
    text = prepared["layout/ids"][0].count_nonzero()
    assert int(places - text) <= per_view + 2  # ids that happen to be 0
    first = stage.scene_tokens(prepared)[0, :per_view]
    features = prepared["patches"][0, 0] if tokens == "patches" else prepared["views"][0, :1]
    torch.testing.assert_close(first, features.float())


def test_what_is_trained_and_what_no_checkpoint_holds() -> None:
    for tune, has_llm in ((LORA, "lora"), (FULL, "embed_tokens"), (PROJECTOR, "")):
        stage = llm.stage(llm.ONEVISION, tune, trained=True)
        trained = {n for n, p in stage.named_parameters() if p.requires_grad}
        assert any(n.startswith("projector.") for n in trained)
        assert any(n.startswith("encoder.") for n in trained)
        of_llm = {n for n in trained if n.startswith("llm.")}
        assert bool(of_llm) == bool(has_llm)
        assert all("lora" in n for n in of_llm) == (tune != FULL)
        assert set(stage.unsaved()) == {
            n for n, p in stage.named_parameters() if n.startswith("llm.") and not p.requires_grad
        }
        assert not any("vision" in n or "multi_modal" in n for n, _ in stage.named_parameters())
        stage.train()(batch(stage)).sums["answer"].backward()
        assert not [n for n, p in stage.named_parameters() if p.requires_grad and p.grad is None]


def test_groups_hold_every_trained_parameter_once_with_its_rate() -> None:
    stage = llm.stage(trained=True)
    groups = [g for g in stage.param_groups(0.1) if g["params"]]
    assert {g["name"]: g["lr_scale"] for g in groups} == {
        "matrices": 1.0, "projector matrices": 2.0, "projector others": 2.0, "encoder matrices": 0.5,
        "encoder others": 0.5,
    }  # fmt: skip
    listed = [id(p) for g in groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in stage.parameters() if p.requires_grad)


def test_a_new_model_depends_on_its_seed_alone() -> None:
    first, same, other = (llm.new_model(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_of_each_class_is_loaded_by_name(kind: str, tmp_path: Any) -> None:
    source = str(llm.write_model(tmp_path / kind, kind))
    config = LlmConfig(source, model=llm.MODEL_OF[kind], lora=AdapterConfig(rank=2))
    loaded = load_llm(config, None, 0)
    expected = llm.network(kind).state_dict()
    for name, weight in loaded.state_dict().items():
        if "lora" not in name:
            assert torch.equal(weight, expected[name.replace(".base_layer", "")]), name
    half = load_llm(config, None, 0, torch.bfloat16)
    kinds = {p.requires_grad: p.dtype for p in half.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    config.lora.targets = ["q_proj", "nothing"]
    with pytest.raises(UnusableModel, match="has no layer nothing; it has"):
        load_llm(config, None, 0)
