"""What turns a scan into the encoder's point maps, as a processor of transformers.

Legend: B scenes, V views, h w pixels as recorded, H W of the encoder's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from poma3d.auto.points import on_grid as points_on_grid
from poma3d.export.arrays import Array, points_of_depth
from poma3d.export.fields import FORMAT_VERSION, OTHER_FORMAT
from poma3d.export.frames import on_grid
from poma3d.scenes.frame import ColourCamera

CAMERA = ("intrinsics", "poses", "colour", "depth_scale")
TENSORS = "pt"


class Poma3dProcessor(ProcessorMixin):
    """Depth with its camera, or points -> point maps on the encoder's grid.

    Args:
        image_size: (H, W) of the grid.
        format_version: of the folder.
    """

    def __init__(self, image_size: Sequence[int], format_version: int = FORMAT_VERSION) -> None:
        if format_version != FORMAT_VERSION:
            raise ValueError(
                f"processor_config.json has format_version {format_version!r}, this package reads "
                f"{FORMAT_VERSION}: {OTHER_FORMAT}"
            )
        super().__init__()
        self.image_size = list(image_size)
        self.format_version = format_version

    def __call__(
        self,
        depth: Array | Sequence[Array] | None = None,
        intrinsics: Array | None = None,
        poses: Array | Sequence[Array] | None = None,
        *,
        xyz: Array | None = None,
        rgb: Array | Sequence[Array] | None = None,
        colour: ColourCamera | None = None,
        up: Array | Sequence[float] | None = None,
        depth_scale: float | None = None,
        return_tensors: str | None = TENSORS,
    ) -> BatchFeature:
        """One scan as it was recorded, or point maps, on the encoder's grid.

        Depth goes the way of `SceneEncoder.from_frames` and of `poma ingest`: the world is turned z-up,
        pictures upright, depth is cut to what colour shows and brought to the grid, the intrinsics with it.

        Args:
            depth: [V, h, w], or V maps [h, w], of one scan; integers in millimetres, floats in metres; 0,
                65535 and what is not finite is none.
            intrinsics: of the depth maps as they are: [4] fx, fy, cx, cy or a matrix [3, 3] for all frames,
                or one for each.
            poses: [V, 3, 4] or [V, 4, 4] camera (x right, y down, z ahead) -> world in metres, in the order
                of the recording.
            xyz: in place of these three: floating [V, h, w, 3] or [B, V, h, w, 3], world coordinates in
                metres, (0, 0, 0) or not finite where there is none; pictures upright. They are brought to
                the grid by nearest neighbour.
            rgb: pictures of the same views, uint8 [V, any, any, 3] or V pictures ([B, V, h, w, 3] with
                `xyz`); they are brought to the grid alike and handed on. The encoder does not read them.
            colour: camera of the pictures, where it is not the depth's: what both see is kept.
            up: up direction of the world, as [0, -1, 0] for y down. Of depth it is estimated where it is
                not given, with a warning where that is not sure; `xyz` is then taken as z-up.
            depth_scale: metres per unit of depth, where it is not as above.
            return_tensors: "pt" alone.

        Returns:
            `point_maps` float32 [B, V, H, W, 3], B = 1 for depth, and `rgb` uint8 [B, V, H, W, 3] where
            pictures were given: the arguments of `Poma3dModel.forward`.

        Raises:
            ValueError: frames that cannot be used, each with its number and reason, as intrinsics of another
                image size, pictures of another shape, or poses that are no rigid motion.
        """
        if return_tensors not in (None, TENSORS):
            raise ValueError(f"return_tensors is {return_tensors!r}, expected {TENSORS!r}")
        given = {"intrinsics": intrinsics, "poses": poses, "colour": colour, "depth_scale": depth_scale}
        if xyz is not None:
            if extra := [n for n, v in {"depth": depth, **given}.items() if v is not None]:
                raise ValueError(f"xyz is points already: leave out {', '.join(extra)}, or give no xyz")
            points, pictures = points_on_grid(xyz, rgb, up, self._grid)
        else:
            if depth is None or intrinsics is None or poses is None:
                lacking = [n for n, v in {"depth": depth, **given}.items() if v is None][:3]
                raise ValueError(
                    f"{lacking[0]} is missing: give depth, intrinsics and poses of one scan, or xyz"
                )
            frames = on_grid(depth, intrinsics, poses, self._grid, colour, up, depth_scale, rgb)
            points = points_of_depth(*frames.arrays())
            stacked = None if frames.pictures is None else np.stack(frames.pictures)[None]
            pictures = None if stacked is None else torch.from_numpy(stacked)
        return BatchFeature(
            {"point_maps": points} if pictures is None else {"point_maps": points, "rgb": pictures}
        )

    @property
    def _grid(self) -> tuple[int, int]:
        height, width = self.image_size
        return height, width

    @property
    def model_input_names(self) -> list[str]:
        """What it returns."""
        return ["point_maps", "rgb"]
