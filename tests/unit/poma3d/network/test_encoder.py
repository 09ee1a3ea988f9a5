import pytest
import torch

from poma3d.network.config import EncoderConfig, TuningConfig
from poma3d.network.encoder import build_encoder, validate
from tests.helpers import tiny

GRID = (6, 6)


def points(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_an_untrained_encoder_is_the_teachers_image_tower(kind: str, mode: str) -> None:
    tower = tiny.tower(kind)
    encoder = build_encoder(EncoderConfig(tuning=TuningConfig(mode=mode)), tower, GRID).eval()
    x = points()
    with torch.no_grad():
        torch.testing.assert_close(encoder(x).pooled, tower.build()(x).pooled)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_lora_trains_adapters_and_the_patch_embedding_alone(kind: str) -> None:
    cfg = EncoderConfig(tuning=TuningConfig(rank=4, targets=["q", "fc2"]))
    encoder = build_encoder(cfg, tiny.tower(kind), GRID)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    patch = {name for name in trained if "patch_embed" in name}
    adapters = {name for name in trained if "lora_" in name}
    assert trained == patch | adapters
    assert len(patch) == (1 if kind == "clip" else 2)
    assert len(adapters) == 2 * 2 * 2  # layers x targets x (A, B)
    encoder(points()).pooled.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_no_parameter_is_without_dimensions() -> None:
    encoder = build_encoder(EncoderConfig(), tiny.tower(), GRID)
    assert all(p.ndim > 0 for p in encoder.parameters())


def test_bfloat16_weights_give_float32_features_and_keep_the_geometry() -> None:
    encoder = build_encoder(EncoderConfig(tuning=TuningConfig(mode="full")), tiny.tower(), GRID)
    x = points()
    exact = encoder(x).pooled
    half = encoder.bfloat16()
    output = half(x + 0)
    assert output.pooled.dtype is torch.float32
    assert output.tokens.dtype is torch.bfloat16
    assert torch.cosine_similarity(output.pooled, exact).min() > 0.99
    # 5 m and 5.01 m are the same number in bfloat16; the embedding tells them apart
    flat = torch.full((1, 3, 48, 48), 5.0)
    embed = half.vit.patch_embed
    assert not torch.equal(embed(flat), embed(flat * 1.01))


def test_gain_magnifies_what_varies_inside_a_patch() -> None:
    tower = tiny.tower()
    plain = build_encoder(EncoderConfig(), tower, GRID).vit.patch_embed
    gained = build_encoder(EncoderConfig(input_gain=4.0), tower, GRID).vit.patch_embed
    flat = torch.randn(1, 3, 6, 6).repeat_interleave(8, 2).repeat_interleave(8, 3)
    detail = torch.randn(1, 3, 48, 48)
    patches = detail.unflatten(2, (6, 8)).unflatten(4, (6, 8))
    detail = (patches - patches.mean((3, 5), keepdim=True)).flatten(4, 5).flatten(2, 3)
    torch.testing.assert_close(gained(flat + detail), plain(flat + 4 * detail), atol=1e-4, rtol=1e-4)


def test_checkpointing_changes_nothing_but_memory() -> None:
    tower, x = tiny.tower(), points()
    gradients = []
    for checkpointing in (False, True):
        cfg = EncoderConfig(
            tuning=TuningConfig(mode="full", dropout=0.0), gradient_checkpointing=checkpointing
        )
        encoder = build_encoder(cfg, tower, GRID)
        encoder(x).pooled.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_any_memory_format_of_points() -> None:
    encoder = build_encoder(EncoderConfig(), tiny.tower(), GRID).eval()
    x = points()
    view = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder(view).pooled, encoder(x).pooled)


def test_views_of_another_size_are_refused() -> None:
    encoder = build_encoder(EncoderConfig(), tiny.tower(), GRID)
    with pytest.raises(ValueError, match=r"\(3, 48, 48\).*\(3, 32, 48\)"):
        encoder(torch.zeros(1, 3, 32, 48))


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (TuningConfig(mode="half"), "encoder.tuning.mode is 'half'"),
        (TuningConfig(targets=["q", "qkv"]), "qkv"),
        (TuningConfig(targets=[]), "choose one or more"),
        (TuningConfig(rank=0), "encoder.tuning.rank 0"),
        (TuningConfig(dropout=1.0), "encoder.tuning.dropout 1.0"),
    ],
)
def test_contradictions_are_refused(tuning: TuningConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        validate(EncoderConfig(tuning=tuning))


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_it_is_one_graph_for_torch_compile(mode: str) -> None:
    tuning = TuningConfig(mode=mode, dropout=0.0)
    encoder = build_encoder(EncoderConfig(tuning=tuning, input_gain=2.0), tiny.tower(), GRID)
    names = [name for name, _ in encoder.named_parameters()]
    x, keep = points(), torch.tensor([[0, 3, 7], [1, 2, 35]])
    expected = encoder(x, keep)
    encoder.compile(fullgraph=True, backend="eager")
    for ours, plain in zip(encoder(x, keep), expected, strict=True):
        torch.testing.assert_close(ours, plain)
    assert [name for name, _ in encoder.named_parameters()] == names
