"""The encoder as it leaves training: point maps, depth or recorded frames of scenes -> features.

Legend: B scenes, V views, H W pixels of the encoder's grid, h w of a recording's depth maps, P patches,
D width, E joint space.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poma3d.export import search
from poma3d.export.arrays import Array, as_tensor, points_of_depth
from poma3d.export.frames import on_grid
from poma3d.export.search import Provenance, Ranking
from poma3d.network.encoder import PointMapEncoder, merge_adapters
from poma3d.network.vit import VisionTransformer
from poma3d.pretrained.teacher import Teacher
from poma3d.scenes.frame import ColourCamera

DIGEST_LENGTH = 24
"""Hexadecimal digits of an encoder's hash."""


class SceneFeatures(NamedTuple):
    """What a scene's views are turned into."""

    features: Tensor
    """[B, V, E] float32, unit length."""
    tokens: Tensor
    """[B, V, P, D] patch tokens of the last layer, in the dtype of the weights."""
    projected: Tensor
    """[B, V, E] float32: `features` before they are brought to unit length."""


def encode(vit: VisionTransformer, points: Tensor, chunk_views: int) -> SceneFeatures:
    """Features of point maps [B, V, H, W, 3], `chunk_views` views at a time; see `SceneEncoder.forward`.

    Raises:
        ValueError: another number of dimensions or image size.
    """
    if points.ndim != 5 or points.shape[-1] != 3:
        raise ValueError(f"point maps must be [B, V, H, W, 3], got {tuple(points.shape)}")
    passes = [vit(part.permute(0, 3, 1, 2)) for part in points.flatten(0, 1).split(chunk_views)]
    projected = torch.cat([p.pooled for p in passes]).float()
    tokens = torch.cat([p.tokens for p in passes])
    found = (F.normalize(projected, dim=-1), tokens, projected)
    return SceneFeatures(*(x.unflatten(0, points.shape[:2]) for x in found))


class SceneEncoder(nn.Module):
    """Point maps of scenes -> features and tokens, in evaluation mode without gradient."""

    def __init__(self, vit: VisionTransformer, provenance: Provenance | None = None) -> None:
        super().__init__()
        self.vit = vit.eval().requires_grad_(False)
        self.provenance = provenance or Provenance()
        self._teacher: Teacher | None = None

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
        return encode(self.vit, points, chunk_views)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def from_depth(
        self, depth: Array, depth_scale: Array | float, intrinsics: Array, pose: Array
    ) -> SceneFeatures:
        """Encode scenes from depth and cameras that are *ready*, as the samples of a data set are: the
        world z-up and in metres, depth on the encoder's grid, pictures upright. Frames as they were recorded
        go through `from_frames`: in a world that is not level the features are those of another scene, and
        nothing says so.

        Args:
            depth: [B, V, H, W] in units of `depth_scale`, 0 = none; float, int32, uint16, or int16, which is
                read as the bits of uint16. NumPy or torch, on any device.
            depth_scale: metres per unit, a number or [B].
            intrinsics: [B, V, 4] fx, fy, cx, cy in pixels of this grid.
            pose: [B, V, 3, 4] camera -> world, z-up, metres.

        Raises:
            ValueError: another shape or dtype, or a principal point outside the grid: the intrinsics are of
                pictures of another size.
        """
        return self(points_of_depth(depth, depth_scale, intrinsics, pose, self.device))

    def from_frames(
        self,
        depth: Array | Sequence[Array],
        intrinsics: Array,
        poses: Array | Sequence[Array],
        colour: ColourCamera | None = None,
        up: Array | Sequence[float] | None = None,
        depth_scale: float | None = None,
    ) -> SceneFeatures:
        """Encode frames of *one* scan as they were recorded, with what `poma ingest` does to them: the world
        is turned z-up, pictures upright, depth is cut to what colour shows and brought to the encoder's
        grid, the intrinsics with it. The features are those of `poma evaluate` for the same frames.

        Args:
            depth: [V, h, w], or V maps [h, w]; integers in millimetres, floats in metres; 0, 65535 and what
                is not finite is none.
            intrinsics: of the depth maps as they are: [4] fx, fy, cx, cy or a matrix [3, 3] for all frames,
                or one for each.
            poses: [V, 3, 4] or [V, 4, 4] camera (x right, y down, z ahead) -> world in metres, in the order
                of the recording.
            colour: camera of the scan's pictures, where it is not the depth's: ingest keeps what both see.
                The pictures themselves are not needed.
            up: up direction of the scan's world, as [0, -1, 0] for y down. When not given it is estimated
                from floors and tables, with a warning where that is not sure. More frames make it surer: for
                a few views of a long scan give what `poma3d.scenes.orientation.estimate_up` says of all.
            depth_scale: metres per unit of depth, where it is not as above.

        Returns:
            features of one scene, [1, V, E] and [1, V, P, D].

        Raises:
            ValueError: frames that cannot be used, each with its number and reason, as intrinsics of another
                image size or poses that are no rigid motion.
        """
        frames = on_grid(depth, intrinsics, poses, self.vit.shape.image_size, colour, up, depth_scale)
        return self.from_depth(*frames.arrays())

    def rank(self, scenes: SceneFeatures | Tensor, text: str | Array) -> Ranking:
        """Views and scenes by how well they fit a text. The teacher that the export names is opened at the
        first text.

        Args:
            scenes: features, [B, V, E].
            text: words, or their features [E] from the teacher's text tower.

        Raises:
            ValueError: the teacher cannot be opened here, or an empty text.
        """
        features = scenes.features if isinstance(scenes, SceneFeatures) else scenes
        if isinstance(text, str):
            self._teacher = self._teacher or search.open_teacher(self.provenance, self.device)
            text = search.text_features(self._teacher, text)
        return search.rank(features, as_tensor("text", text, features.device))


def weights_digest(encoder: SceneEncoder) -> str:
    """Hash of an encoder's weights and sizes: the same for a run's checkpoint and for what was exported of
    it."""
    digest = hashlib.sha256(json.dumps(encoder.vit.shape.to_dict(), sort_keys=True).encode())
    digest.update(f"{encoder.vit.patch_embed.gain}".encode())
    for name, tensor in sorted(encoder.vit.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGEST_LENGTH]
