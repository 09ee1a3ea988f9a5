"""Pictures brought to the view of their depth maps.

Many sensors take colour with another camera than depth: of another field of view, some centimetres beside it.
An embedding of patch (r, c) of such a picture belongs to another place than patch (r, c) of the point map.
Where a frame says which camera took its picture (`Frame.colour_camera`), ingest draws it anew on the depth's
grid:

    depth pixel -> point, by depth and its camera -> point of the colour camera -> its pixel -> colour

What both cameras see is kept: the depth map is cut to the rectangle that the picture covers at the median
depth. Beside the picture's edge, where nearer or farther points leave it, its last pixels are repeated. A
surface that the depth camera sees and the colour camera does not, behind an edge, takes the colour of what
hides it. A picture without a camera of its own must have the shape of its depth map's view.

Legend: H W the sample's grid; h w pixels of the picture; y x of the depth map in the source.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from poma3d.geometry import same_view
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame

LEAST_SEEN = 0.5
"""Share of the depth map's rows and columns that the picture must cover: with less, a camera is wrong."""
SAME_CORNER = 0.005
"""Two views whose corners are this close, as a share of the longer side, are one view: a pixel of 224."""


def cut_to_colour(frame: Frame, depth_scale: float) -> Frame:
    """The frame with its depth map cut to the rectangle that its picture covers; itself where it covers all.

    Args:
        frame: checked (`poma3d.scenes.checks`), on the source's grid.
        depth_scale: metres per unit of depth.

    Raises:
        BadFrame: the colour camera looks elsewhere.
    """
    camera = frame.colour_camera
    if camera is None:
        return frame
    rows, columns = frame.depth.shape
    z = _median(frame.depth) * depth_scale
    across = _inside(*_pixels(frame, np.array(rows // 2), np.arange(columns), np.array(z)), camera.size)
    down = _inside(*_pixels(frame, np.arange(rows), np.array(columns // 2), np.array(z)), camera.size)
    if across.mean() < LEAST_SEEN or down.mean() < LEAST_SEEN:
        raise BadFrame(
            "colour camera sees another view",
            f"its picture covers {down.mean():.2f} of the rows and {across.mean():.2f} of the columns of the "
            f"depth map, at least {LEAST_SEEN}",
        )
    if across.all() and down.all():
        return frame
    left, top = int(across.argmax()), int(down.argmax())
    inside = slice(top, top + int(down.sum())), slice(left, left + int(across.sum()))
    intrinsics = frame.intrinsics - np.array([0, 0, left, top])
    return replace(frame, depth=np.ascontiguousarray(frame.depth[inside]), intrinsics=intrinsics)


def picture_on_grid(frame: Frame, source_hw: tuple[int, int], depth_scale: float) -> np.ndarray | None:
    """uint8 [any, any, 3]: what `frame.depth` shows, in colour; None where the frame has no picture.

    Args:
        frame: with depth [H, W] and intrinsics on the sample's grid.
        source_hw: size of the depth map before it went there.
        depth_scale: metres per unit of depth.

    Raises:
        BadFrame: the picture cannot be read, or has the shape of another view.
    """
    picture = frame.colour()
    if picture is None:
        return None
    height, width = picture.shape[:2]
    camera = frame.colour_camera
    if camera is not None:
        if not same_view((height, width), camera.size, None):
            raise BadFrame(
                "picture of another shape",
                f"{width} x {height}, its camera is for {camera.size[1]} x {camera.size[0]}",
            )
        return _drawn(frame, camera, picture, depth_scale)
    depth_camera = _focal_lengths(frame, source_hw) if frame.points is None else None
    if not same_view((height, width), source_hw, depth_camera):
        raise BadFrame(
            "picture of another shape",
            f"{width} x {height}, its depth map is {source_hw[1]} x {source_hw[0]}: it is stretched, "
            "cropped, on its side, or of a camera of its own, which the reader must name",
        )
    return picture


def colour_camera_of(
    intrinsics: np.ndarray, size: tuple[int, int], colour: ColourCamera
) -> ColourCamera | None:
    """The colour camera, or None where it shows what the depth camera shows, to a pixel of 224.

    Args:
        intrinsics: [4] of the depth camera, for maps of `size` (y, x).
    """
    moved = np.abs(colour.from_depth - np.eye(4)[:3]).max()
    rows, columns = size
    corners = np.array([[0, 0], [columns - 1, rows - 1]], np.float64)
    rays = (corners - intrinsics[2:]) / intrinsics[:2]
    scale = np.array([columns / colour.size[1], rows / colour.size[0]])
    there = (rays * colour.intrinsics[:2] + colour.intrinsics[2:] + 0.5) * scale - 0.5
    apart = np.abs(there - corners).max() / max(size)
    return None if moved == 0 and apart < SAME_CORNER else colour


def _median(depth: np.ndarray) -> float:
    """Median of the depths uint16 [y, x] that are not 0, by counting: several times as fast as by sorting."""
    below = np.cumsum(np.bincount(depth.ravel())[1:])
    low, high = (np.searchsorted(below, rank, "right") + 1 for rank in ((below[-1] - 1) // 2, below[-1] // 2))
    return (int(low) + int(high)) / 2


def _focal_lengths(frame: Frame, source_hw: tuple[int, int]) -> np.ndarray:
    """fx, fy on the source's grid."""
    rows, columns = frame.depth.shape
    return frame.intrinsics[:2] * np.array([source_hw[1] / columns, source_hw[0] / rows])


def _pixels(
    frame: Frame, rows: np.ndarray, columns: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels of the frame's depth map, at depths z in metres, lie in its picture: u, v at the camera's
    size; NaN for what is not in front of the camera."""
    camera = frame.colour_camera
    assert camera is not None
    fx, fy, cx, cy = frame.intrinsics
    x, y = (columns - cx) / fx * z, (rows - cy) / fy * z
    local = [r[0] * x + r[1] * y + r[2] * z + r[3] for r in camera.from_depth]
    ahead = np.where(local[2] > 0, local[2], np.nan)
    fx, fy, cx, cy = camera.intrinsics
    return fx * local[0] / ahead + cx, fy * local[1] / ahead + cy


def _inside(u: np.ndarray, v: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels lie in a picture of `size` (h, w)."""
    return (u >= -0.5) & (u <= size[1] - 0.5) & (v >= -0.5) & (v <= size[0] - 0.5)


def _drawn(frame: Frame, camera: ColourCamera, picture: np.ndarray, depth_scale: float) -> np.ndarray:
    """uint8 [H, W, 3]: the colour of every pixel's point."""
    rows, columns = np.mgrid[: frame.depth.shape[0], : frame.depth.shape[1]]
    z = _filled(frame.depth * depth_scale)
    u, v = _pixels(frame, rows, columns, z)
    # First to about the grid's resolution, which averages, then to its pixels, which only interpolates.
    far_u, far_v = _pixels(frame, rows, columns, np.full(frame.depth.shape, z.max()))
    shape = tuple(
        max(1, round(min(pixels, stored / _step(far))))
        for pixels, stored, far in zip(picture.shape[:2], camera.size, (far_v, far_u), strict=True)
    )
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.size != shape[::-1]:
        image = image.resize(shape[::-1], Image.Resampling.BICUBIC, reducing_gap=2.0)
    # grid_sample counts from -1 to 1 over the edges of the outermost pixels.
    at = np.stack([(2 * u + 1) / camera.size[1] - 1, (2 * v + 1) / camera.size[0] - 1], axis=-1)
    source = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    grid = torch.from_numpy(np.nan_to_num(at, nan=0.0)[None]).float()
    drawn = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    return drawn[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def _step(position: np.ndarray) -> float:
    """How far a coordinate [H, W] of the picture moves from one pixel of the grid to the next."""
    steps = [
        abs(float(position[-1, column] - position[0, column])) / max(1, position.shape[0] - 1)
        for position, column in ((position, position.shape[1] // 2), (position.T, position.shape[0] // 2))
    ]
    return max(*steps, np.finfo(float).tiny)


def _filled(depth: np.ndarray) -> np.ndarray:
    """Depth float64 [H, W], 0 filled with the mean of what is known nearby; 1 where nothing is known.

    Means of 2 x 2 pixels, of 2 x 2 of those and so on: each hole takes the finest that is known.
    """
    known = depth > 0
    if known.all():
        return depth
    if not known.any():
        return np.ones_like(depth)
    padded = np.pad(depth, [(0, n % 2) for n in depth.shape])
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    coarse = blocks.sum((1, 3)) / np.maximum((blocks > 0).sum((1, 3)), 1)
    near = np.repeat(np.repeat(_filled(coarse), 2, axis=0), 2, axis=1)
    return np.where(known, depth, near[: depth.shape[0], : depth.shape[1]])
