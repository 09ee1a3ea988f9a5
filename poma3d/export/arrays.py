"""Arrays of NumPy or torch as the encoder takes them, and what it refuses.

Legend: B scenes, V views, H W pixels of the encoder's grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from poma3d.geometry import unproject

Array = np.ndarray | Tensor
DEPTH_DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.uint16, torch.int32,
)  # fmt: skip


def as_tensor(name: str, array: Array, device: torch.device | str = "cpu") -> Tensor:
    """The array as a tensor on a device.

    Raises:
        ValueError: no array of numbers.
    """
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{name} is an array of {array.dtype}, expected numbers")
        # torch knows neither the other byte order, which 16-bit PNGs come in, nor negative strides.
        array = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    if not isinstance(array, Tensor):
        raise ValueError(f"{name} is a {type(array).__name__}, expected an array of NumPy or torch")
    return array.to(device)


def points_of_depth(
    depth: Array,
    depth_scale: Array | float,
    intrinsics: Array,
    pose: Array,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Point maps float32 [B, V, H, W, 3] in metres, on a device; see `SceneEncoder.from_depth`.

    Raises:
        ValueError: another shape or dtype, or a principal point outside the grid.
    """
    depth, intrinsics, pose = (
        as_tensor(name, array, device)
        for name, array in (("depth", depth), ("intrinsics", intrinsics), ("pose", pose))
    )
    refuse_depth(depth)
    refuse_cameras(depth, intrinsics, pose)
    scale = depth_scale
    if not isinstance(scale, (int, float)):
        scale = as_tensor("depth_scale", scale, device)
        scale = scale[:, None] if scale.ndim else scale
    return unproject(depth, scale, intrinsics, pose)


def refuse_depth(depth: Tensor) -> None:
    """Refuse what is no depth of scenes.

    Raises:
        ValueError: another number of dimensions, or a dtype that depth does not come in.
    """
    if depth.ndim != 4:
        raise ValueError(f"depth is {list(depth.shape)}, expected [B, V, H, W]: scenes, views, rows, columns")
    if depth.dtype not in DEPTH_DTYPES:
        raise ValueError(f"depth is {depth.dtype}, expected float32, int32 or uint16")


def refuse_cameras(depth: Tensor, intrinsics: Tensor, pose: Tensor) -> None:
    """Refuse cameras that are not those of these depth maps [B, V, H, W].

    Raises:
        ValueError: another shape or an integer dtype, or a principal point outside the grid, with the view.
    """
    views = list(depth.shape[:2])
    for name, array, last in (("intrinsics", intrinsics, [4]), ("pose", pose, [3, 4])):
        if list(array.shape) != views + last:
            raise ValueError(f"{name} is {list(array.shape)}, expected {views + last} for {views[1]} views")
        if not array.is_floating_point():
            raise ValueError(f"{name} is {array.dtype}, expected float32 or float64")
    height, width = depth.shape[-2:]
    cx, cy = intrinsics[..., 2], intrinsics[..., 3]
    inside = (cx > -0.5) & (cx < width - 0.5) & (cy > -0.5) & (cy < height - 0.5)
    if not bool(inside.all()):
        scene, view = (int(i) for i in torch.nonzero(~inside)[0])
        u, v = float(cx[scene, view]), float(cy[scene, view])
        raise ValueError(
            f"scene {scene}, view {view}: the principal point ({u:g}, {v:g}) is outside the depth map of "
            f"{width} x {height}: these are intrinsics of pictures of another size, about {2 * u + 1:.0f} x "
            f"{2 * v + 1:.0f}. Scale them with the depth, or give frames as recorded to from_frames"
        )
