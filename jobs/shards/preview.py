"""Pictures of samples that a person can judge: colour, depth, point map and the scene from above.

Legend: V views, H W pixels, N points.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from poma3d.geometry import unproject
from poma3d.sample import Sample

NO_DEPTH_GREY = 0.88
INK, MUTED, WARNING = "#1c2430", "#5b6675", "#b3261e"
DEPTH_COLOURS = colormaps["viridis_r"]
HEIGHT_COLOURS = colormaps["viridis"]
MARKER_PIXELS = 680.0
"""Marker area in points^2 times a view's height: coarse views need larger dots to look filled."""
TILE_INCHES = 1.9
SCENE_INCHES = 7.4


@dataclass
class PreviewConfig:
    """What a contact sheet shows."""

    scenes: int = 4
    """How many scenes, from the start of the data set."""

    views: int = 4
    """How many views of each scene at most."""

    ceiling_m: float = 2.1
    """The view from above leaves out what is higher than this above the floor, so that it sees inside."""

    dpi: int = 110
    """Dots per inch of the PNG; a tile is about 1.9 inches wide."""


def preview(
    samples: Sequence[Sample], path: Path, config: PreviewConfig, remarks: Sequence[Sequence[str]] = ()
) -> Path:
    """Write a contact sheet of `samples` as PNG to `path`.

    Args:
        samples: to show.
        path: of the PNG.
        config: what it shows.
        remarks: what is to be said of each sample: how its views agree, then what is doubtful.

    Raises:
        ValueError: there is no sample to show.
    """
    shown = list(samples[: config.scenes])
    if not shown:
        raise ValueError("nothing to preview: the data set has no samples")
    columns = min(config.views, max(len(s.depth) for s in shown))
    figure = Figure(figsize=((columns + 3.6) * TILE_INCHES, SCENE_INCHES * len(shown)), facecolor="white")
    FigureCanvasAgg(figure)
    for i, block in enumerate(figure.subfigures(len(shown), 1, squeeze=False)[:, 0]):
        _draw_scene(block, shown[i], columns, config, remarks[i] if remarks else [])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=config.dpi)
    return path


def point_maps(sample: Sample) -> np.ndarray:
    """World coordinates in metres, float32 [V, H, W, 3]; zeros where there is no depth."""
    if sample.xyz is not None:
        return np.asarray(sample.xyz, np.float32)
    return unproject(
        torch.from_numpy(np.ascontiguousarray(sample.depth, np.uint16)),
        float(sample.depth_scale),
        torch.from_numpy(np.asarray(sample.intrinsics, np.float32)),
        torch.from_numpy(np.asarray(sample.pose, np.float32)),
    ).numpy()


def colours(sample: Sample) -> list[np.ndarray]:
    """The colour images, uint8 [h, w, 3] each; an empty list when the sample keeps none."""
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in sample.colour]


def depth_picture(depth: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
    """Depth [H, W] as uint8 [H, W, 3]: near is bright, far is dark, none is grey."""
    share = np.clip((depth - nearest) / max(farthest - nearest, 1e-9), 0.0, 1.0)
    return _with_holes(DEPTH_COLOURS(share)[..., :3], depth > 0)


def point_map_picture(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A point map [H, W, 3] with x, y, z as red, green, blue between the corners `low` and `high`."""
    share = np.clip((points - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return _with_holes(share, np.asarray(points.any(axis=-1)))


def corners(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opposite corners [3] of the box that holds the points [..., 3] but for the outermost percent."""
    valid = points.reshape(-1, 3)
    valid = valid[valid.any(axis=1)]
    if len(valid) == 0:
        return np.zeros(3), np.ones(3)
    return np.quantile(valid, 0.01, axis=0), np.quantile(valid, 0.99, axis=0)


def draw_top_view(axes: Axes, sample: Sample, points: np.ndarray, ceiling_m: float) -> None:
    """The merged scene from above, in its colours (or by height), with its cameras, if known, as arrows.

    Args:
        points: [V, H, W, 3], see `point_maps`.
    """
    low, high = corners(points)
    seen = points.any(axis=-1) & (points[..., 2] < low[2] + ceiling_m)
    xyz = points[seen]
    order = np.argsort(xyz[:, 2], kind="stable")  # what is higher hides what is lower
    rgb = _point_colours(sample, points, low, ceiling_m)[seen][order]
    axes.scatter(
        xyz[order, 0], xyz[order, 1], c=rgb, s=MARKER_PIXELS / points.shape[1], marker="s", linewidths=0
    )
    corner, opposite = low[:2], high[:2]
    if sample.xyz is None:
        at = np.asarray(sample.pose, np.float64)[np.asarray(sample.view_valid, bool)]
        ahead = at[:, :2, 2] / np.maximum(np.linalg.norm(at[:, :2, 2], axis=1, keepdims=True), 1e-9)
        axes.quiver(*at[:, :2, 3].T, *ahead.T, color="#d1242f", scale=14, width=0.012, zorder=3)
        corner = np.minimum(corner, at[:, :2, 3].min(axis=0))
        opposite = np.maximum(opposite, at[:, :2, 3].max(axis=0))
    margin = 0.15
    axes.set_xlim(corner[0] - margin, opposite[0] + margin)
    axes.set_ylim(corner[1] - margin, opposite[1] + margin)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7, colors=MUTED, length=2)
    axes.yaxis.tick_right()
    for spine in axes.spines.values():
        spine.set_color("#c9d1d9")
    axes.set_xlabel("metres", fontsize=7, color=MUTED)


def _draw_scene(
    block: Figure, sample: Sample, columns: int, config: PreviewConfig, remarks: Sequence[str]
) -> None:
    """One scene: a row each of colour, depth and point maps, and the view from above beside them."""
    points, images = point_maps(sample), colours(sample)
    metres = sample.depth.astype(np.float64) * sample.depth_scale
    low, high = corners(points)
    nearest, farthest = np.quantile(metres[metres > 0], [0.01, 0.99]) if (metres > 0).any() else (0.0, 1.0)
    grid = block.add_gridspec(
        3, columns + 1, width_ratios=[1.0] * columns + [2.9],
        left=0.055, right=0.965, top=0.845, bottom=0.06, wspace=0.06, hspace=0.06,
    )  # fmt: skip
    for view in range(min(columns, len(metres))):
        caption = sample.view_captions[view][0] if sample.view_captions[view] else ""
        tiles = [
            images[view] if images else None,
            depth_picture(metres[view], nearest, farthest) if sample.xyz is None else None,
            point_map_picture(points[view], low, high),
        ]
        for row, tile in enumerate(tiles):
            axes = block.add_subplot(grid[row, view])
            _draw_tile(axes, tile)
            if row == 0:
                title = _wrap(caption if sample.view_valid[view] else "(a repeat)", 31, 4)
                axes.set_title(title, fontsize=6.5, color=INK, loc="left", pad=3, parse_math=False)
    rows = ["colour", f"depth\n{nearest:.1f} - {farthest:.1f} m", "point map\nx y z as r g b"]
    for row, label in enumerate(rows):
        block.axes[row].set_ylabel(label, fontsize=8, color=MUTED)
    draw_top_view(block.add_subplot(grid[:, columns]), sample, points, config.ceiling_m)
    headline = f"{sample.scene_id}   ({sample.source}, {int(np.sum(sample.view_valid))} views)"
    block.text(0.015, 0.985, headline, fontsize=10, weight="bold", color=INK, va="top", parse_math=False)
    figure, *doubts = remarks or [""]
    block.text(0.985, 0.985, figure, fontsize=8, color=MUTED, va="top", ha="right", parse_math=False)
    below = "\n".join(_wrap(text, 88, 2) for text in doubts)
    block.text(0.985, 0.905, below, fontsize=7, color=WARNING, va="top", ha="right", parse_math=False)
    said = _wrap(sample.scene_captions[0], 150, 2) if sample.scene_captions else ""
    block.text(0.015, 0.952, said, fontsize=8, color=MUTED, va="top", parse_math=False)


def _draw_tile(axes: Axes, tile: np.ndarray | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if tile is None:
        axes.set_facecolor(str(NO_DEPTH_GREY))
        axes.text(0.5, 0.5, "not kept", transform=axes.transAxes, ha="center", fontsize=8, color=MUTED)
        axes.set_box_aspect(1)
    else:
        axes.imshow(tile, interpolation="nearest")


def _point_colours(sample: Sample, points: np.ndarray, low: np.ndarray, ceiling_m: float) -> np.ndarray:
    """RGB in [0, 1] of every point, [V, H, W, 3]."""
    if not sample.colour:
        return HEIGHT_COLOURS(np.clip((points[..., 2] - low[2]) / ceiling_m, 0.0, 1.0))[..., :3]
    size = points.shape[2], points.shape[1]
    images = [np.asarray(Image.fromarray(image).resize(size)) for image in colours(sample)]
    return np.stack(images) / 255.0


def _with_holes(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """RGB in [0, 1] as uint8, grey where nothing is seen."""
    return (np.where(seen[..., None], rgb, NO_DEPTH_GREY) * 255).round().astype(np.uint8)


def _wrap(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ..."))
