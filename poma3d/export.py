"""The trained encoder as a folder that loads with one call, without Ray, DeepSpeed, peft or the platform.

    encoder = poma3d.export.load("folder")
    views = encoder(point_maps)                                     # or
    views = encoder.from_depth(depth, depth_scale, intrinsics, pose)
    views.features   # [B, V, E] unit vectors, to be compared with the teacher's text features
    views.tokens     # [B, V, P, D] patch tokens

The folder holds `model.safetensors` (adapters folded into the weights they adapt) and `config.json`.

Legend: B scenes, V views, H W pixels, P patches, D width, E joint space.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poma3d.geometry import unproject
from poma3d.network.encoder import PointMapEncoder, merge_adapters
from poma3d.network.vit import VisionTransformer, VitShape
from poma3d.pretrained.folder import share
from poma3d.pretrained.loading import load_module

FORMAT = "poma3d-encoder"
FORMAT_VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
DIGEST_LENGTH = 24
"""Hexadecimal digits of an encoder's hash."""


@dataclass(frozen=True)
class Provenance:
    """Where an encoder comes from."""

    teacher: str = ""
    """Name of the teacher whose text features are comparable."""
    teacher_revision: str = ""
    """Its revision."""
    logit_scale: float = 0.0
    """Logarithm of its temperature factor."""
    run: str = ""
    """The run and step that gave the weights."""


class SceneFeatures(NamedTuple):
    """What a scene's views are turned into."""

    features: Tensor
    """[B, V, E] float32, unit length."""
    tokens: Tensor
    """[B, V, P, D] patch tokens of the last layer, in the dtype of the weights."""
    projected: Tensor
    """[B, V, E] float32: `features` before they are brought to unit length."""


class SceneEncoder(nn.Module):
    """Point maps of scenes -> features and tokens, in evaluation mode without gradient."""

    def __init__(self, vit: VisionTransformer, provenance: Provenance | None = None) -> None:
        super().__init__()
        self.vit = vit.eval().requires_grad_(False)
        self.provenance = provenance or Provenance()

    @classmethod
    def of(cls, encoder: PointMapEncoder, provenance: Provenance | None = None) -> SceneEncoder:
        """A copy of a stage's encoder (`stage.trained_encoder`) with its adapters merged."""
        vit = copy.deepcopy(encoder.vit)
        merge_adapters(vit)
        return cls(vit, provenance)

    @torch.no_grad()
    def forward(self, points: Tensor, chunk_views: int = 256) -> SceneFeatures:
        """Encode scenes.

        Args:
            points: [B, V, H, W, 3] world coordinates in metres, (0, 0, 0) where there is no depth.
            chunk_views: views per pass.

        Raises:
            ValueError: another number of dimensions or image size.
        """
        if points.ndim != 5 or points.shape[-1] != 3:
            raise ValueError(f"point maps must be [B, V, H, W, 3], got {tuple(points.shape)}")
        passes = [self.vit(part.permute(0, 3, 1, 2)) for part in points.flatten(0, 1).split(chunk_views)]
        projected = torch.cat([p.pooled for p in passes]).float()
        tokens = torch.cat([p.tokens for p in passes])
        found = (F.normalize(projected, dim=-1), tokens, projected)
        return SceneFeatures(*(x.unflatten(0, points.shape[:2]) for x in found))

    def from_depth(
        self, depth: Tensor, depth_scale: Tensor | float, intrinsics: Tensor, pose: Tensor
    ) -> SceneFeatures:
        """Encode scenes from depth and cameras.

        Args:
            depth: [B, V, H, W] in units of `depth_scale`, 0 = none (dtypes as in `geometry.unproject`).
            depth_scale: metres per unit, a number or [B].
            intrinsics: [B, V, 4] fx, fy, cx, cy in pixels of this grid.
            pose: [B, V, 3, 4] camera -> world.
        """
        scale = depth_scale[:, None] if isinstance(depth_scale, Tensor) and depth_scale.ndim else depth_scale
        return self(unproject(depth, scale, intrinsics, pose))


def weights_digest(encoder: SceneEncoder) -> str:
    """Hash of an encoder's weights and sizes: the same for a run's checkpoint and for what was exported of
    it."""
    digest = hashlib.sha256(json.dumps(encoder.vit.shape.to_dict(), sort_keys=True).encode())
    digest.update(f"{encoder.vit.patch_embed.gain}".encode())
    for name, tensor in sorted(encoder.vit.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGEST_LENGTH]


def save(encoder: SceneEncoder, folder: Path | str) -> None:
    """Write an encoder's folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: p.detach().cpu().contiguous() for name, p in encoder.vit.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shape": encoder.vit.shape.to_dict(),
        "input_gain": encoder.vit.patch_embed.gain,
        "provenance": asdict(encoder.provenance),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    share(folder)


def load(folder: Path | str, device: str | torch.device = "cpu") -> SceneEncoder:
    """Read an encoder's folder.

    Raises:
        ValueError: no such folder, or one of another format; says which file.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    vit = VisionTransformer(VitShape.from_dict(config["shape"]), config["input_gain"])
    load_module(vit, [folder / WEIGHTS], str(folder / WEIGHTS))
    return SceneEncoder(vit, Provenance(**config["provenance"])).to(device)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; give the folder of an exported encoder") from error
    found = (config.get("format"), config.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{path} is of format {found}, expected {(FORMAT, FORMAT_VERSION)}: export again")
    return config
