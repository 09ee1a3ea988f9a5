"""A scene of a data set as what its page shows: cloud, cameras, pictures.

Legend: V views, H W pixels, N points.
"""

from __future__ import annotations

import base64
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jobs.common.datasets import Dataset
from jobs.display.text import some
from jobs.shards.preview import (
    HEIGHT_COLOURS,
    colours,
    corners,
    depth_picture,
    point_map_picture,
    point_maps,
)
from jobs.view.config import PageConfig
from plinth.data.shards import RowGroupReader
from plinth.errors import DataError
from plinth.redaction import printable
from poma3d.sample import Sample, to_samples
from poma3d.view.cloud import Cloud, merge, pyramids

PART = "/"
"""Between the id of a scan and that of a single image of it, in the ids of samples."""
JPEG_QUALITY = 85
DEPTH_SHADES = 64
"""Of a depth picture with a palette; more would not be told apart."""


@dataclass(frozen=True)
class ViewOf:
    """A view by its sample and its place there."""

    sample: int
    view: int


@dataclass(frozen=True)
class ShownView:
    """A view as the page shows it."""

    name: str
    captions: list[str]
    picture: str
    """Colour as a data URI; the point map where no colour is kept."""
    depth: str | None
    """Depth as a data URI; None where there is no camera."""
    pyramid: list[list[float]] | None
    """`poma3d.view.cloud.pyramids`; None where there is no camera."""


@dataclass(frozen=True)
class ShownScene:
    """A scene as the page shows it."""

    scene_id: str
    source: str
    captions: list[str]
    cloud: Cloud
    coloured: bool
    """Whether the points have colours of their own, not those of their height."""
    box: tuple[list[float], list[float]]
    """Opposite corners that hold all points but the outermost."""
    views: list[ShownView]
    of_views: int
    """How many views the scene has, shown or not."""


def find(dataset: Dataset, scene_id: str) -> list[Sample]:
    """The samples of a scene.

    Raises:
        DataError: there is none; names those that are spelt alike, or the single images of such a scan: each
            of them is in a frame of its own, so they make no scene.
    """
    reader = RowGroupReader(dataset.storage)
    found: list[Sample] = []
    known: dict[str, None] = {}
    for shard in dataset.manifest.shards:
        for group in range(len(shard.row_group_rows)):
            ids = reader.read(shard, group, ["scene_id"]).column("scene_id").to_pylist()
            known |= dict.fromkeys(ids)
            if scene_id in ids:
                samples = to_samples(reader.read(shard, group, list(shard.columns)))
                found += [sample for sample in samples if sample.scene_id == scene_id]
    if found:
        return found
    parts = [each for each in known if each.startswith(scene_id + PART)]
    if parts:
        raise DataError(
            f"{dataset.storage.uri} has '{printable(scene_id)}' as {len(parts)} single images, each in the "
            "frame of its own camera.",
            f"Name one of them, such as {printable(parts[0])}.",
        )
    alike = difflib.get_close_matches(scene_id, known, n=3, cutoff=0.4) or list(known)
    raise DataError(
        f"{dataset.storage.uri} has no scene '{printable(scene_id)}'.",
        f"It has {len(known)}, such as {some([printable(each) for each in alike])}.",
    )


def views_of(samples: Sequence[Sample]) -> list[ViewOf]:
    """All views that are no repeats, in order."""
    return [ViewOf(i, int(v)) for i, s in enumerate(samples) for v in np.flatnonzero(s.view_valid)]


def spread(views: Sequence[ViewOf], most: int) -> list[ViewOf]:
    """At most `most` of the views, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(views) - 1, min(most, len(views))).round().astype(int))
    return [views[i] for i in chosen.tolist()]


def shown_scene(
    scene_id: str, samples: Sequence[Sample], chosen: Sequence[ViewOf], config: PageConfig
) -> ShownScene:
    """What the page of a scene shows.

    Args:
        samples: of the scene (`find`).
        chosen: views to show, in the order of the page.

    Raises:
        DataError: there is no view, or none with a point.
    """
    if not chosen:
        raise DataError(f"Scene '{printable(scene_id)}' has no views.", "Ingest it again.")
    maps = [point_maps(sample) for sample in samples]
    images = [colours(sample) for sample in samples]
    points = np.stack([maps[each.sample][each.view] for each in chosen])
    low, high = corners(points)
    coloured = all(images)
    rgb = np.stack(
        [
            _fitted(images[each.sample][each.view], points.shape[1:3])
            if coloured
            else _by_height(points[i], low[2], high[2])
            for i, each in enumerate(chosen)
        ]
    )
    try:
        cloud = merge(points, rgb, config.points)
    except ValueError as error:
        raise DataError(
            f"Scene '{printable(scene_id)}': {error}.", "Look at it with `poma shards preview`."
        ) from None
    metres = [samples[e.sample].depth[e.view] * float(samples[e.sample].depth_scale) for e in chosen]
    seen_m = np.concatenate([each[each > 0] for each in metres])
    nearest, farthest = np.quantile(seen_m, [0.01, 0.99])
    views = []
    for i, each in enumerate(chosen):
        sample = samples[each.sample]
        has_camera = sample.xyz is None
        picture = images[each.sample][each.view] if coloured else point_map_picture(points[i], low, high)
        pyramid = None
        if has_camera:
            at = slice(each.view, each.view + 1)
            hw = (sample.depth.shape[1], sample.depth.shape[2])
            pyramid = pyramids(sample.intrinsics[at], sample.pose[at], hw, config.camera_m)[0].tolist()
        views.append(
            ShownView(
                name=_view_name(samples, each),
                captions=list(sample.view_captions[each.view]),
                picture=_picture(picture, config.picture_px),
                depth=_depth(depth_picture(metres[i], nearest, farthest), config.picture_px)
                if has_camera
                else None,
                pyramid=pyramid,
            )
        )
    captions = list(dict.fromkeys(caption for sample in samples for caption in sample.scene_captions))
    box = (low.tolist(), high.tolist())
    total = len(views_of(samples))
    return ShownScene(scene_id, samples[0].source, captions, cloud, coloured, box, views, total)


def _view_name(samples: Sequence[Sample], each: ViewOf) -> str:
    """`view 3`, with its sample where there are several."""
    return f"view {each.view}" if len(samples) == 1 else f"{samples[each.sample].scene_id}, view {each.view}"


def _fitted(image: np.ndarray, hw: tuple[int, ...]) -> np.ndarray:
    """A picture at the size of its point map."""
    if image.shape[:2] == tuple(hw):
        return image
    return np.asarray(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BOX))


def _by_height(points: np.ndarray, low: float, high: float) -> np.ndarray:
    """Points [H, W, 3] as colours of their height, uint8 [H, W, 3]."""
    share = np.clip((points[..., 2] - low) / max(high - low, 1e-9), 0.0, 1.0)
    return np.rint(HEIGHT_COLOURS(share)[..., :3] * 255).astype(np.uint8)


def height_ramp(stops: int = 32) -> list[list[int]]:
    """The colours of heights from low to high, [stops][3] of 0 to 255."""
    ramp: list[list[int]] = (
        np.rint(HEIGHT_COLOURS(np.linspace(0, 1, stops))[:, :3] * 255).astype(int).tolist()
    )
    return ramp


def _small(image: np.ndarray, most: int, how: Image.Resampling) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image, np.uint8))
    factor = most / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize(
        (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)), how
    )


def _picture(image: np.ndarray, most: int) -> str:
    buffer = io.BytesIO()
    _small(image, most, Image.Resampling.LANCZOS).save(buffer, "jpeg", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _depth(image: np.ndarray, most: int) -> str:
    """Nothing is made up between near and far: nearest pixels, and PNG."""
    buffer = io.BytesIO()
    small = _small(image, most, Image.Resampling.NEAREST)
    small.quantize(DEPTH_SHADES, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
