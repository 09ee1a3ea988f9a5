from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poma3d import export
from poma3d.export import Provenance, SceneEncoder
from poma3d.inputs import ROTATION, fake_batch, point_maps
from poma3d.network.config import LossConfig
from poma3d.sample import TENSOR_COLUMNS
from poma3d.stages import MainStage, build_stage
from tests.helpers import tiny


def trained(mode: str, tower: str = "clip", gain: float = 1.0) -> MainStage:
    """A stage whose target encoder is away from the teacher."""
    joint = tiny.JOINT if tower == "clip" else tiny.WIDTH
    cfg = tiny.model_config(mode)
    cfg.encoder.input_gain = gain
    stage = build_stage("main", cfg, LossConfig(), tiny.shape(joint=joint), tiny.tower(tower), 0)
    assert isinstance(stage, MainStage)
    with torch.no_grad():
        for target in stage.ema_pairs().values():
            p = stage.get_parameter(target)
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
    return stage


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_round_trip_gives_the_target_encoder_s_features(mode: str, tower: str, tmp_path: Path) -> None:
    stage = trained(mode, tower, gain=2.0).eval()
    provenance = Provenance("tiny", "abc", 2.5, "run/step-3")
    export.save(SceneEncoder.of(stage.trained_encoder, provenance), tmp_path / "out")
    loaded = export.load(tmp_path / "out")
    assert loaded.provenance == provenance
    batch = fake_batch(tiny.shape(), TENSOR_COLUMNS, 2, 0)
    found = loaded.from_depth(*(batch[n] for n in ("depth", "depth_scale", "intrinsics", "pose")))
    points = point_maps(batch, stage.prepare(batch).get(ROTATION))
    with torch.no_grad():
        expected = stage.target(points.flatten(0, 1).permute(0, 3, 1, 2))
    pooled = torch.nn.functional.normalize(expected.pooled, dim=-1).unflatten(0, (2, 3))
    torch.testing.assert_close(found.features, pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.tokens, expected.tokens.unflatten(0, (2, 3)), atol=1e-4, rtol=1e-4)
    assert any("lora" in name for name, _ in stage.target.named_parameters()) == (mode == "lora")
    assert not any("lora" in name for name, _ in loaded.named_parameters())


def test_views_are_encoded_in_chunks(tmp_path: Path) -> None:
    encoder = SceneEncoder.of(trained("full").trained_encoder)
    points = torch.randn(2, 3, 48, 48, 3)
    for a, b in zip(encoder(points), encoder(points, chunk_views=4), strict=True):
        torch.testing.assert_close(a, b)


def test_a_depth_scale_may_be_a_number() -> None:
    encoder = SceneEncoder.of(trained("full").trained_encoder)
    batch = fake_batch(tiny.shape(), TENSOR_COLUMNS, 2, 0)
    depth, intrinsics, pose = (batch[n] for n in ("depth", "intrinsics", "pose"))
    a = encoder.from_depth(depth, 0.001, intrinsics, pose)
    b = encoder.from_depth(depth, batch["depth_scale"], intrinsics, pose)
    torch.testing.assert_close(a.features, b.features)


def test_it_loads_without_the_platform_or_the_training_libraries(tmp_path: Path) -> None:
    export.save(SceneEncoder.of(trained("lora").trained_encoder), tmp_path)
    code = (
        "import sys, torch, poma3d.export\n"
        f"e = poma3d.export.load({str(tmp_path)!r})\n"
        "print(tuple(e(torch.zeros(1, 2, 48, 48, 3)).features.shape))\n"
        "print(sorted({'plinth', 'ray', 'deepspeed', 'peft', 'transformers'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(1, 2, 16)", "[]"]


def test_bad_input_is_named(tmp_path: Path) -> None:
    encoder = SceneEncoder.of(trained("full").trained_encoder)
    with pytest.raises(ValueError, match=r"\[B, V, H, W, 3\], got \(2, 48, 48, 3\)"):
        encoder(torch.zeros(2, 48, 48, 3))
    with pytest.raises(ValueError, match="give the folder of an exported encoder"):
        export.load(tmp_path / "nothing")
    export.save(encoder, tmp_path)
    weights = tmp_path / export.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be loaded"):
        export.load(tmp_path)
    config = json.loads((tmp_path / export.CONFIG).read_text())
    (tmp_path / export.CONFIG).write_text(json.dumps({**config, "format_version": 9}))
    with pytest.raises(ValueError, match=r"config\.json has format_version 9, this package reads 1: install"):
        export.load(tmp_path)
    for config, says in (
        ({}, "is no exported encoder: its config.json has no format poma3d-encoder"),
        ({"model_type": "llama"}, "is no exported encoder"),
        ({"model_type": "poma3d_llm"}, r"no encoder: load it with .*AutoModelForCausalLM\.from_pretrained"),
        ([], "is no config.json"),
    ):
        (tmp_path / export.CONFIG).write_text(json.dumps(config))
        with pytest.raises(ValueError, match=says):
            export.load(tmp_path)
