"""What a stage reads from a batch: point maps, the captions of this epoch, the sample's identity.

Legend: n samples, V views, H W pixels, C captions of a view, S captions of a scene, E joint space, P patches,
D width of the teacher's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poma3d.geometry import unproject
from poma3d.losses import layer_norm, unit
from poma3d.randomness import generator
from poma3d.sample import XYZ, SampleShape

Batch = dict[str, Any]
FAKE_ROOM_M = 5.0
"""Edge of the room in which a fake batch has its points."""


VIEW_CAPTIONS, SCENE_CAPTIONS, ROTATION = "drawn/view-captions", "drawn/scene-captions", "drawn/rotation"
"""Keys of a prepared batch: numbers in [0, 1) [n, V] and [n], and rotations [n, 3, 3]."""


class Samples(NamedTuple):
    """Who is in a batch: with the seed, the source of all randomness."""

    epochs: list[int]
    keys: list[int]


def read_samples(batch: Batch) -> Samples:
    """Identity of the samples of a batch that is still on the host."""
    epochs, keys = torch.stack([batch["epoch"], batch["sample_key"]]).tolist()
    return Samples(epochs, keys)


def valid_views(batch: Batch) -> Tensor:
    """bool [n, V]: real samples' views that are no repeats."""
    valid: Tensor = batch["view_valid"].bool() & batch["sample_valid"][:, None]
    return valid


def point_maps(batch: Batch, rotation: Tensor | None = None) -> Tensor:
    """Point maps float32 [n, V, H, W, 3] in metres from depth and cameras (or as stored), each sample turned
    by its rotation [n, 3, 3]."""
    if XYZ in batch:
        points: Tensor = batch[XYZ].float()
        if rotation is not None:
            # Not as a matrix product, which autocast would do in half precision.
            points = (points[..., None, :] * rotation[:, None, None, None]).sum(dim=-1)
        return points
    pose = batch["pose"].float()
    if rotation is not None:
        pose = rotation[:, None] @ pose
    return unproject(batch["depth"], batch["depth_scale"][:, None], batch["intrinsics"], pose)


def turn(samples: Samples, degrees: float, seed: int) -> Tensor:
    """Rotations about the vertical [n, 3, 3], one per sample; turning the cameras turns the scene."""
    angle = (uniform((), "rotation", seed, samples) * 2 - 1) * math.radians(degrees)
    rotation = torch.eye(3).repeat(len(angle), 1, 1)
    rotation[:, 0, 0] = rotation[:, 1, 1] = angle.cos()
    rotation[:, 1, 0] = angle.sin()
    rotation[:, 0, 1] = -angle.sin()
    return rotation


def choose_captions(embeddings: Tensor, counts: Tensor, drawn: Tensor) -> Tensor:
    """One of the captions of each row.

    Args:
        embeddings: [n, V, C, E], or [n, S, E] for scenes.
        counts: [n, V], or [n]: how many captions exist; rows without any give padding, to be masked.
        drawn: like `counts`, in [0, 1).

    Returns:
        [n, V, E], or [n, E].
    """
    counts = counts.long()
    index = (drawn * counts).long()
    index = torch.minimum(index, (counts - 1).clamp(min=0))  # u * count may round up to count
    chosen = embeddings.gather(-2, index[..., None, None].expand(*index.shape, 1, embeddings.shape[-1]))
    return chosen.squeeze(-2)


def uniform(size: tuple[int, ...], tag: str, seed: int, samples: Samples) -> Tensor:
    """Numbers in [0, 1) [n, *size] on the CPU, drawn per (seed, epoch, sample).

    Args:
        tag: of the random stream.
    """
    identities = zip(samples.epochs, samples.keys, strict=True)
    return torch.stack([torch.rand(size, generator=generator(tag, seed, e, k)) for e, k in identities])


def fake_batch(shape: SampleShape, columns: Sequence[str], n: int, seed: int) -> Batch:
    """Random columns of `shape`, and what a loader adds to them, on the CPU."""
    g = torch.Generator().manual_seed(seed)
    v, h, w, c, s, e = (
        shape.views, shape.height, shape.width, shape.captions, shape.scene_captions, shape.embedding,
    )  # fmt: skip

    def rows(*dims: int) -> Tensor:
        return unit(torch.randn(n, *dims, generator=g)).half()

    camera = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1.5]])
    pose = camera.repeat(n, v, 1, 1)
    pose[..., 3] += torch.rand(n, v, 3, generator=g)
    made = {
        "depth": torch.randint(500, 6000, (n, v, h, w), generator=g, dtype=torch.int16),
        "depth_scale": torch.full((n,), 0.001),
        "intrinsics": torch.tensor([float(w), float(w), (w - 1) / 2, (h - 1) / 2]).repeat(n, v, 1),
        "pose": pose,
        "view_valid": torch.ones(n, v, dtype=torch.uint8),
        "image_embedding": rows(v, e),
        "caption_embedding": rows(v, c, e),
        "caption_count": torch.randint(1, c + 1, (n, v), generator=g, dtype=torch.uint8),
        "scene_caption_embedding": rows(s, e),
        "scene_caption_count": torch.randint(1, s + 1, (n,), generator=g, dtype=torch.uint8),
        "image_tokens": layer_norm(
            torch.randn(n, v, shape.image_tokens, shape.token_width, generator=g)
        ).half(),
    }
    if XYZ in columns:
        made[XYZ] = (torch.rand(n, v, h, w, 3, generator=g) * FAKE_ROOM_M).half()
    keys = torch.randint(2**62, (n,), generator=g)
    return {name: made[name] for name in columns} | {
        "sample_valid": torch.ones(n, dtype=torch.bool),
        "sample_key": keys,
        "sample_id": [f"fake-{key}" for key in keys.tolist()],
        "epoch": torch.zeros(n, dtype=torch.int64),
    }
