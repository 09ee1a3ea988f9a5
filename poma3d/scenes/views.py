"""From a scene's frames to samples: filters, choice of views, sub-scenes, single images.

Views are chosen by greedy maximum coverage: each next view is the one that adds most occupied voxels.
Depth goes to the sample's grid by nearest neighbour with the camera scaled to match; colour is kept as
a JPEG of the same grid. Frames that cannot be used go into a table of rejects.

Legend: V views of a sample; H W the sample's grid; F candidate frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from poma3d.geometry import resize_depth_nearest, scale_intrinsics, unproject
from poma3d.sample import Sample, SampleShape
from poma3d.scenes.checks import check_frame
from poma3d.scenes.colour import cut_to_colour, picture_on_grid
from poma3d.scenes.config import ViewConfig
from poma3d.scenes.disagreement import Pairs
from poma3d.scenes.frame import EMPTY_CAPTION, BadFrame, Frame, Reject, SceneFrames

CAMERA_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
"""Pose of a single image: its world is the camera's frame with (x, y, z) mapped to (x, z, -y)."""
VOXEL_BITS = 21
"""Bits per axis of a packed voxel index: +-100 km at 0.1 m."""


@dataclass(frozen=True)
class _View:
    """A candidate: its frame on the sample's grid, its place in the scene."""

    frame: Frame
    source_hw: tuple[int, int]
    """Size of the depth map before it went to the sample's grid."""
    place: int
    depth_scale: float
    config: ViewConfig

    @cached_property
    def voxels(self) -> np.ndarray:
        """Ids int64 of the voxels that it sees, each once; needed where views are chosen among more."""
        return _voxels(self.frame, self.depth_scale, self.config)


def to_samples(
    scene: SceneFrames, shape: SampleShape, config: ViewConfig, pairs: Pairs | None = None
) -> tuple[list[Sample], list[Reject]]:
    """The samples of one scene (none where no frame can be used), and the frames and captions that were left
    out.

    Args:
        scene: its frames are decoded here, the candidates among them, each once.
        shape: of the samples.
        config: how views are chosen and stored.
        pairs: is given each frame that can be used, as the source has it, to compare views by.

    Raises:
        ValueError: `shape` does not fit the configuration.
    """
    config.validate()
    if config.single_images and shape.views != 1:
        raise ValueError(f"single images are samples of 1 view, but the shape has views={shape.views}")
    rejects = [*scene.left_out, *scene.caption_rejects]
    scene = replace(scene, captions=_with_words(scene, "", scene.captions, rejects))
    samples = []
    for name, places in _parts(len(scene.frames), shape.views, config):
        views = list(_usable(scene, places, shape, config, rejects, pairs))
        if config.single_images:
            samples += list(_single_images(scene, views, shape, config, rejects))
        elif views:
            sample = _sample(scene, name, views, shape, config, rejects)
            samples += [sample] if sample else []
    return samples, rejects


def choose_views(
    voxels: Sequence[np.ndarray], count: int, preferred: Sequence[bool] | None = None
) -> list[int]:
    """Greedy maximum coverage: indices of at most `count` views, in their given order.

    When nothing is left to cover before `count` views are found, coverage starts anew among the rest.

    Args:
        voxels: per view the ids int64 of the voxels that it sees.
        count: how many to choose.
        preferred: views that are exhausted before any other is taken; all when None.
    """
    if len(voxels) <= count:
        return list(range(len(voxels)))
    sizes = np.array([len(v) for v in voxels])
    _, ids = np.unique(np.concatenate(voxels), return_inverse=True)
    owner = np.repeat(np.arange(len(voxels)), sizes)
    covered = np.zeros(int(ids.max(initial=-1)) + 1, bool)
    free = np.ones(len(voxels), bool)
    liked = np.ones(len(voxels), bool) if preferred is None else np.asarray(preferred, bool)
    chosen: list[int] = []
    while len(chosen) < count:
        open_to = free & liked if (free & liked).any() else free
        gain = np.bincount(owner[~covered[ids]], minlength=len(voxels))
        best = int(np.where(open_to, gain, -1).argmax())
        if gain[best] == 0 and covered.any():
            covered[:] = False
            continue
        chosen.append(best)
        free[best] = False
        covered[ids[owner == best]] = True
    return sorted(chosen)


def to_grid(frame: Frame, height: int, width: int) -> Frame:
    """The frame with its depth, camera and points on a grid [height, width]; the whole view, not cropped."""
    depth = resize_depth_nearest(frame.depth, height, width)
    intrinsics = scale_intrinsics(
        frame.intrinsics, (frame.depth.shape[0], frame.depth.shape[1]), (height, width)
    )
    points = frame.points
    if points is not None:
        points = resize_depth_nearest(points, height, width)
    return replace(frame, depth=depth, intrinsics=intrinsics, points=points)


def encode_colour(picture: np.ndarray, height: int, width: int, quality: int) -> bytes:
    """JPEG of a picture uint8 [any, any, 3] on the grid [height, width]."""
    buffer = io.BytesIO()
    _resized(picture, height, width).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resize_colour(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture uint8 [any, any, 3] on the grid: uint8 [height, width, 3]."""
    return np.array(_resized(picture, height, width))


def _resized(picture: np.ndarray, height: int, width: int) -> Image.Image:
    image = Image.fromarray(picture)
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _parts(frames: int, views: int, config: ViewConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Suffix of the id and candidate frames of every sub-scene; one without suffix for a whole scene."""
    chunks = max(1, round(frames / config.chunk_frames)) if config.chunk_frames else 1
    for number, places in enumerate(np.array_split(np.arange(frames), chunks)):
        step = max(1, min(config.candidate_step, len(places) // views))
        yield (f"/{number:03d}" if config.chunk_frames else ""), places[::step]


def _usable(
    scene: SceneFrames,
    places: np.ndarray,
    shape: SampleShape,
    config: ViewConfig,
    rejects: list[Reject],
    pairs: Pairs | None,
) -> Iterator[_View]:
    """The frames at `places` that pass the filters, on the sample's grid; the others go to `rejects`."""
    for place in places.tolist():
        try:
            frame = scene.frames[place]
            check_frame(frame, config)
            if pairs is not None:
                pairs.add(frame)
            frame = cut_to_colour(frame, scene.depth_scale)
        except BadFrame as bad:
            rejects.append(_reject(scene, place, bad))
            continue
        source_hw = (frame.depth.shape[0], frame.depth.shape[1])
        captions = _with_words(scene, scene.frame_id(place), frame.captions, rejects)
        frame = replace(to_grid(frame, shape.height, shape.width), captions=captions)
        yield _View(frame, source_hw, place, scene.depth_scale, config)


def _with_words(
    scene: SceneFrames, frame_id: str, captions: Sequence[str], rejects: list[Reject]
) -> list[str]:
    """The captions that are not empty; the others go to `rejects`, without their frame."""
    rejects += [
        Reject(scene.scene_id, frame_id, EMPTY_CAPTION, f"caption {number} of {len(captions)}")
        for number, text in enumerate(captions, start=1)
        if not text.strip()
    ]
    return [text for text in captions if text.strip()]


def _voxels(frame: Frame, depth_scale: float, config: ViewConfig) -> np.ndarray:
    """Ids int64 of the voxels that a view sees, each once."""
    stride = config.coverage_stride
    if frame.points is not None:
        seen = frame.points[::stride, ::stride].astype(np.float32)
        return _cells(seen[seen.any(axis=-1)], config.voxel_m)
    depth = torch.from_numpy(frame.depth[::stride, ::stride].copy())
    # Pixel (u, v) of every n-th row and column is pixel (n u, n v): the camera shrinks by n.
    intrinsics = torch.from_numpy(frame.intrinsics / stride)
    points = unproject(depth, depth_scale, intrinsics, torch.from_numpy(frame.pose))
    return _cells(points[depth.view(torch.int16) != 0].numpy(), config.voxel_m)


def _cells(points: np.ndarray, voxel_m: float) -> np.ndarray:
    """Ids int64 of the voxels of points [n, 3] in metres, each once."""
    cells = np.floor(points / voxel_m).astype(np.int64)
    cells += 1 << (VOXEL_BITS - 1)
    return np.unique((cells[:, 0] << 2 * VOXEL_BITS) | (cells[:, 1] << VOXEL_BITS) | cells[:, 2])


def _sample(
    scene: SceneFrames,
    name: str,
    views: list[_View],
    shape: SampleShape,
    config: ViewConfig,
    rejects: list[Reject],
) -> Sample | None:
    """One sample of the best V of `views`; None when the colour of none of them can be read."""
    while views:
        chosen = views
        if len(views) > shape.views:
            preferred = [bool(v.frame.captions) for v in views] if config.captioned_first else None
            chosen = [views[i] for i in choose_views([v.voxels for v in views], shape.views, preferred)]
        colour, unreadable = _colours(scene, chosen, shape, config, rejects)
        if not unreadable:
            return _assemble(scene, scene.scene_id + name, chosen, colour, shape)
        views = [v for v in views if v.place not in unreadable]
    return None


def _colours(
    scene: SceneFrames, chosen: list[_View], shape: SampleShape, config: ViewConfig, rejects: list[Reject]
) -> tuple[list[bytes], set[int]]:
    """JPEGs of the chosen views, none when any has no colour; and the places that cannot be read."""
    jpegs: list[bytes] = []
    unreadable = set()
    for view in chosen if config.colour else []:
        try:
            picture = picture_on_grid(view.frame, view.source_hw, scene.depth_scale)
        except BadFrame as bad:
            rejects.append(_reject(scene, view.place, bad))
            unreadable.add(view.place)
            continue
        if picture is not None:
            jpegs.append(encode_colour(picture, shape.height, shape.width, config.jpeg_quality))
    return (jpegs if len(jpegs) == len(chosen) else []), unreadable


def _assemble(
    scene: SceneFrames, scene_id: str, chosen: list[_View], colour: list[bytes], shape: SampleShape
) -> Sample:
    """The sample of the chosen views, filled up with repeats that are marked as such."""
    order = [i % len(chosen) for i in range(shape.views)]
    maps = [view.frame.points for view in chosen]
    points = [each for each in maps if each is not None]
    return Sample(
        scene_id=scene_id,
        source=scene.source,
        depth=np.stack([chosen[i].frame.depth for i in order]),
        intrinsics=np.stack([chosen[i].frame.intrinsics for i in order]).astype(np.float32),
        pose=np.stack([chosen[i].frame.pose for i in order]).astype(np.float32),
        view_valid=(np.arange(shape.views) < len(chosen)).astype(np.uint8),
        view_captions=[chosen[i].frame.captions[: shape.captions] for i in order],
        scene_captions=scene.captions[: shape.scene_captions],
        colour=[colour[i] for i in order] if colour else [],
        depth_scale=scene.depth_scale,
        xyz=np.stack([points[i] for i in order]) if points else None,
    )


def _single_images(
    scene: SceneFrames, views: list[_View], shape: SampleShape, config: ViewConfig, rejects: list[Reject]
) -> Iterator[Sample]:
    """Each view as a sample of its own, in its camera's frame turned z-up."""
    for view in views:
        colour, unreadable = _colours(scene, [view], shape, config, rejects)
        if unreadable:
            continue
        sample = _assemble(scene, f"{scene.scene_id}/{view.frame.frame_id}", [view], colour, shape)
        sample.pose = CAMERA_TO_Z_UP[None].astype(np.float32)
        sample.scene_captions = []
        if config.single_median_depth_m > 0:
            median = float(np.median(sample.depth[sample.depth > 0]))
            sample.depth_scale = config.single_median_depth_m / median
        yield sample


def _reject(scene: SceneFrames, place: int, bad: BadFrame) -> Reject:
    return Reject(scene.scene_id, scene.frame_id(place), bad.reason, bad.value)
