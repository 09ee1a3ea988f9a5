from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import plinth.engine.stage as contract
from poma3d import losses
from poma3d.inputs import ROTATION, point_maps, read_samples
from poma3d.masking import draw_masks
from poma3d.network.config import AugmentConfig, EmaConfig, LossConfig
from poma3d.stages import Contrast, Encoded, MainStage, WarmupStage, build_stage
from tests.helpers import tiny

EVERYTHING = LossConfig(dense=2.0)


def make(kind: str = "main", mode: str = "full", tower: str = "clip", **loss: Any) -> Any:
    joint = tiny.JOINT if tower == "clip" else tiny.WIDTH
    cfg = LossConfig(**{"dense": 2.0, **loss})
    return build_stage(kind, tiny.model_config(mode), cfg, tiny.shape(joint=joint), tiny.tower(tower), 0)


def total_loss(stage: Any, batch: dict[str, Any]) -> Tensor:
    """What an engine minimises, in one process with one micro-batch."""
    encoded = stage(batch)
    loss = stage.contrast(encoded.features).total
    for name, total in encoded.sums.items():
        loss = loss + encoded.weights[name] * total / encoded.counts[name].clamp(min=1)
    return loss


def network_inputs(stage: Any, batch: dict[str, Any]) -> Tensor:
    """[n*V, 3, H, W]: the point maps as the encoders take them."""
    points = point_maps(batch, stage.prepare(batch).get(ROTATION))
    return points.flatten(0, 1).permute(0, 3, 1, 2)


def rows(batch: dict[str, Any], index: list[int]) -> dict[str, Any]:
    return {
        name: value[index] if isinstance(value, Tensor) else [value[i] for i in index]
        for name, value in batch.items()
    }


def test_the_shapes_are_the_contract_s() -> None:
    for ours, theirs in ((Encoded, contract.Encoded), (Contrast, contract.Contrast)):
        assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    stage: contract.Stage = make()
    protocol = {n for n in vars(contract.Stage) if not n.startswith("_")}
    assert all(callable(getattr(stage, name)) for name in protocol)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_a_step_reaches_every_trained_parameter(kind: str, mode: str, tower: str) -> None:
    stage = make(kind, mode, tower)
    loss = total_loss(stage, stage.fake_batch(4))
    assert torch.isfinite(loss)
    loss.backward()
    for name, p in stage.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.ndim > 0, name
    grouped = [p for group in stage.param_groups(0.1) for p in group["params"]]
    trained = [p for p in stage.parameters() if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in trained}
    assert len(grouped) == len(trained)


def test_vectors_have_no_weight_decay() -> None:
    decay, none = make().param_groups(0.1)
    assert (decay["weight_decay"], none["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim > 1 for p in decay["params"])
    assert all(p.ndim == 1 for p in none["params"])


def test_the_main_loss_is_the_formula() -> None:
    stage = make(dense=0.0).eval()
    batch = stage.fake_batch(4)
    batch["view_valid"][1, 2] = 0
    batch["caption_count"][0, 1] = 0
    batch["scene_caption_count"][3] = 0
    encoded = stage(batch)
    f = {k: v.double() if v.is_floating_point() else v for k, v in encoded.features.items()}
    s = math.exp(stage.temperature.start)
    c = torch.nn.functional.normalize(stage.encoder(network_inputs(stage, batch)).pooled, dim=-1)
    c = c.unflatten(0, (4, 3)).double()
    torch.testing.assert_close(f["view"], s * c, atol=1e-4, rtol=1e-5)

    def unit(x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x.double(), dim=-1)

    def nce(a: Tensor, b: Tensor) -> Tensor:
        logits, i = s * a @ b.T, torch.arange(len(a))
        ce = torch.nn.functional.cross_entropy
        return 0.5 * (ce(logits, i) + ce(logits.T, i))

    valid = batch["view_valid"].bool()
    r, t = unit(batch["image_embedding"]), unit(encoded.features["text"])
    told = valid & (batch["caption_count"] > 0)
    g = unit(torch.stack([c[i, valid[i]].mean(0) for i in range(4)]))
    q = unit(torch.stack([r[i, valid[i]].mean(0) for i in range(4)]))
    u = unit(encoded.features["scene_text"])
    expected = nce(c[valid], r[valid]) + nce(c[told], t[told]) + nce(g, q) + nce(g[:3], u[:3])
    found = stage.contrast(encoded.features)
    torch.testing.assert_close(found.total.double(), expected, atol=1e-4, rtol=1e-4)
    assert set(found.terms) == {"view_image", "view_text", "scene_image", "scene_text"}
    torch.testing.assert_close(sum(found.terms.values()), found.total)


def test_the_jepa_loss_is_the_formula() -> None:
    stage = make(dense=0.0).eval()
    batch = stage.fake_batch(2)
    batch["view_valid"][1, 2] = 0
    samples = read_samples(batch)
    masks = draw_masks(stage.model_config.masks, stage.grid, 3, stage.seed, samples.epochs, samples.keys)
    context, targets = masks.context.flatten(0, 1), masks.targets.flatten(0, 1)
    views = network_inputs(stage, batch)
    with torch.no_grad():
        z = losses.layer_norm(stage.target(views).tokens)
        kept = losses.layer_norm(stage.encoder(views, context).kept)
        z_hat = stage.predictor(kept, context, targets)
    expected = 0.0
    for scene in range(2):
        chosen = [scene * 3 + v for v in range(3) if batch["view_valid"][scene, v]]
        y = torch.cat([z[i, targets[i].flatten()] for i in chosen]).double()
        x = torch.cat([z_hat[i].flatten(0, 1) for i in chosen]).double()
        distance = (x[:, None] - y[None]).square().mean(-1)
        expected = expected + distance.min(1).values.mean() + distance.min(0).values.mean()
    encoded = stage(batch)
    torch.testing.assert_close(encoded.sums["jepa"].double(), expected, atol=1e-5, rtol=1e-5)
    assert encoded.counts["jepa"] == 2
    assert encoded.weights["jepa"] == 1.0


@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_a_sample_does_not_depend_on_its_company(kind: str) -> None:
    stage = make(kind).eval()
    batch = stage.fake_batch(5)
    together = stage(batch)
    parts = [stage(rows(batch, index)) for index in ([0], [1, 2], [3, 4])]
    for name, value in together.features.items():
        torch.testing.assert_close(torch.cat([p.features[name] for p in parts]), value, atol=1e-5, rtol=1e-5)
    for name, value in together.sums.items():
        torch.testing.assert_close(sum(p.sums[name] for p in parts), value, atol=1e-4, rtol=1e-5)
        assert sum(p.counts[name] for p in parts) == together.counts[name]


@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_the_first_of_two_passes_has_the_features_and_counts(kind: str) -> None:
    stage = make(kind).eval()
    batch = stage.fake_batch(3)
    first, second = stage(batch, features_only=True), stage(batch)
    assert first.sums == {}
    assert first.counts == second.counts
    assert first.weights == second.weights
    for name, value in second.features.items():
        assert torch.equal(first.features[name], value)


def test_dropout_is_replayed_with_the_seed_of_torch() -> None:
    model = tiny.model_config("lora", dropout=0.5)
    stage = build_stage("warmup", model, LossConfig(), tiny.shape(), tiny.tower(), 0)
    with torch.no_grad():
        for name, p in stage.named_parameters():
            if "lora_B" in name:
                p.normal_()
    batch = stage.fake_batch(2)
    torch.manual_seed(1)
    first = stage(batch, features_only=True).features["view"]
    torch.manual_seed(1)
    assert torch.equal(stage(batch).features["view"], first)
    assert not torch.equal(stage(batch).features["view"], first)


def test_repeats_count_nowhere() -> None:
    stage = make().eval()
    batch = stage.fake_batch(4)
    few = rows(batch, [0, 1, 2])
    batch["sample_valid"][3] = False
    batch["depth"][3] = 0
    torch.testing.assert_close(total_loss(stage, batch), total_loss(stage, few), atol=1e-5, rtol=1e-5)
    # nor does what is stored in a repeated view
    few["view_valid"][2, 1] = 0
    before = total_loss(stage, few)
    few["image_embedding"][2, 1] = 1.0
    few["depth"][2, 1] = 1234
    torch.testing.assert_close(total_loss(stage, few), before)


def test_a_batch_without_a_valid_sample_has_no_loss_and_no_gradient() -> None:
    stage = make()
    batch = stage.fake_batch(2)
    batch["sample_valid"][:] = False
    loss = total_loss(stage, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad.abs().max() == 0 for p in stage.parameters() if p.grad is not None)


def test_the_same_sample_twice_is_no_negative_of_itself() -> None:
    stage = make(dense=0.0, jepa=0.0).eval()
    batch = rows(stage.fake_batch(2), [0, 1, 0])
    features = stage(batch).features
    twice = stage.contrast(features).terms["scene_image"]
    features["key"] = torch.arange(3)
    assert twice < stage.contrast(features).terms["scene_image"]


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_target_is_a_frozen_twin_of_what_is_trained(mode: str) -> None:
    stage = make(mode=mode)
    named = dict(stage.named_parameters())
    pairs = stage.ema_pairs()
    assert set(pairs) == {n for n, p in named.items() if n.startswith("encoder.") and p.requires_grad}
    for online, target in pairs.items():
        assert not named[target].requires_grad
        assert torch.equal(named[target], named[online])
        assert named[target] is not named[online]
    stage.train()
    assert stage.encoder.training
    assert not stage.target.training
    assert make("warmup").ema_pairs() == {}
    assert stage.trained_encoder is stage.target
    warmup = make("warmup")
    assert warmup.trained_encoder is warmup.encoder


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_warm_up_s_weights_fit_the_main_stage_by_name(mode: str) -> None:
    warmup, main = make("warmup", mode), make("main", mode)
    with torch.no_grad():
        for p in warmup.parameters():
            p.add_(1)
    missing = main.load_state_dict(warmup.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert {k.split(".")[0] for k in missing.missing_keys} == {"target", "predictor"}
    main.copy_to_target()
    for online, target in main.ema_pairs().items():
        assert torch.equal(main.get_parameter(target), warmup.get_parameter(online))


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = make("main", "lora").state_dict()
    torch.manual_seed(2)
    b = make("main", "lora").state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = build_stage("main", tiny.model_config("lora"), EVERYTHING, tiny.shape(), tiny.tower(), 1)
    assert not torch.equal(other.get_parameter("predictor.inward.weight"), a["predictor.inward.weight"])


def test_the_momentum_follows_its_config() -> None:
    model = tiny.model_config()
    model.ema = EmaConfig(0.9, 1.0)
    stage = build_stage("main", model, LossConfig(), tiny.shape(), tiny.tower(), 0)
    assert [stage.ema_momentum(p) for p in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])


def test_without_lambda_there_is_no_predictor() -> None:
    stage = make(jepa=0.0)
    assert stage.predictor is None
    assert not any(name.startswith("predictor") for name, _ in stage.named_parameters())
    assert "jepa" not in stage(stage.fake_batch(2)).sums


def test_distance_and_reduction_are_choices() -> None:
    batch = make().fake_batch(2)
    chamfer, summed = make().eval()(batch).sums["jepa"], make(jepa_reduction="sum").eval()(batch).sums["jepa"]
    torch.testing.assert_close(summed, chamfer * tiny.WIDTH)
    assert make(jepa_distance="smooth_l1").eval()(batch).sums["jepa"] != chamfer


def test_details_are_logged_when_asked_for() -> None:
    stage = make()
    batch = stage.fake_batch(2)
    assert stage(batch).logs == {}
    stage.log_details = True
    assert set(stage(batch).logs) == {
        "target_feature_std", "target_effective_rank", "unique_match_rate", "own_match_rate",
        "positional_ratio",
    }  # fmt: skip


def test_the_scale_can_be_trained_and_is_clamped() -> None:
    model = tiny.model_config()
    model.train_logit_scale = True
    stage = build_stage("warmup", model, LossConfig(), tiny.shape(), tiny.tower(), 0)
    batch = stage.fake_batch(3)
    total_loss(stage, batch).backward()
    assert stage.temperature.change.grad.abs().item() > 0
    with torch.no_grad():
        stage.temperature.change.fill_(20.0)
    norms = stage(batch).features["view"].norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, 100.0))


def test_bfloat16_weights() -> None:
    stage = make("main", "lora").bfloat16()
    batch = stage.fake_batch(2)
    encoded = stage(batch)
    assert all(v.dtype is torch.float32 for k, v in encoded.features.items() if k in ("view", "scene"))
    assert all(v.dtype is torch.float32 for v in encoded.sums.values())
    total_loss(stage, batch).backward()
    assert torch.isfinite(stage.get_parameter("encoder.vit.patch_embed.weight").grad).all()


@pytest.mark.parametrize("kind", ["warmup", "main"])
def test_pictures(kind: str) -> None:
    stage = make(kind)
    batch = stage.fake_batch(2)
    batch["depth"][0, 0] = 0
    (picture,) = stage.pictures(batch).values()
    assert picture.dtype == np.uint8
    bands = 3 if kind == "main" else 1
    assert picture.shape == (bands * 50, 3 * 50, 3)
    assert picture[:48, :48].max() == 0  # no depth: black
    assert picture[:48, 50:98].std() > 10


def test_rotation_changes_what_is_seen_but_not_the_scene_s_identity() -> None:
    model = tiny.model_config()
    model.augment = AugmentConfig(rotate_z_degrees=180)
    stage = build_stage("warmup", model, LossConfig(), tiny.shape(), tiny.tower(), 0).eval()
    plain = make("warmup", dense=0.0).eval()
    batch = stage.fake_batch(2)
    a, b = stage(batch).features, plain(batch).features
    assert not torch.allclose(a["view"], b["view"])
    assert torch.equal(a["text"], b["text"])


def test_bad_batches_are_named() -> None:
    stage = make()
    batch = stage.fake_batch(2)
    with pytest.raises(ValueError, match="lacks image_embedding, image_tokens"):
        stage({k: v for k, v in batch.items() if not k.startswith("image")})
    batch["depth"] = batch["depth"][..., :40]
    with pytest.raises(ValueError, match=r"\(3, 48, 40\).*\(3, 48, 48\)"):
        stage(batch)


@pytest.mark.parametrize(
    ("loss", "shape", "words"),
    [
        (LossConfig(jepa_distance="l2"), {}, r"loss\.jepa_distance is 'l2'"),
        (LossConfig(jepa_reduction="max"), {}, r"loss\.jepa_reduction is 'max'"),
        (LossConfig(view=-1.0), {}, r"loss\.view is -1.0"),
        (LossConfig(), {"embedding": 99}, "width 99.*16"),
        (LossConfig(), {"width": 50}, "48 x 50 are not whole patches of 8"),
        (LossConfig(dense=1.0), {"image_tokens": 0}, "36 teacher tokens of width 32.*0 of width 32"),
    ],
)
def test_contradictions_are_refused(loss: LossConfig, shape: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_stage(
            "main", tiny.model_config(), loss, dataclasses.replace(tiny.shape(), **shape), tiny.tower(), 0
        )


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="stage 'third' is not one of warmup, main"):
        build_stage("third", tiny.model_config(), LossConfig(), tiny.shape(), tiny.tower(), 0)


def test_views_of_another_size_than_the_teacher_s() -> None:
    shape = dataclasses.replace(tiny.shape(), height=64, width=80)
    stage = build_stage("main", tiny.model_config(), LossConfig(), shape, tiny.tower(), 0)
    assert isinstance(stage, MainStage)
    assert isinstance(stage, WarmupStage)
    assert torch.isfinite(total_loss(stage, stage.fake_batch(2)))
