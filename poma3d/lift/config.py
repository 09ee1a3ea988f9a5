"""What is rejected, and how lifted maps become samples."""

from __future__ import annotations

from dataclasses import dataclass

PILLOW_MEGAPIXELS = 178
"""Larger pictures Pillow takes for an attack, and does not open (`Image.DecompressionBombError`)."""
HASH_BITS = 64
"""Bits of a perceptual hash."""


@dataclass
class FilterConfig:
    """What is rejected. Every reject is counted and listed with its value."""

    min_side_px: int = 64
    """Images with a shorter side are rejected."""
    max_megapixels: float = 80.0
    """Images with more pixels are rejected before they are decoded: they would fill a worker's memory. At
    most 178, where Pillow refuses by itself."""
    min_caption_letters: int = 3
    """Captions with fewer letters are dropped; an image without any caption left is rejected."""
    require_caption: bool = True
    """Reject images without a caption; off, they are kept without, for `poma caption` to describe."""
    min_letter_share: float = 0.5
    """Captions in which a smaller share of the characters are letters or spaces (links, file names, numbers)
    are dropped."""
    duplicate_distance: int = 2
    """Images whose 64-bit perceptual hashes differ in at most this many bits from an earlier image's are
    rejected; -1 rejects only the same bytes with the same captions."""
    min_valid_depth: float = 0.3
    """Maps with a smaller share of valid depth are rejected."""
    min_relief: float = 0.02
    """Maps whose 5th and 95th percentile of depth differ by less than this share of the median are flat."""
    max_median_depth_m: float = 50.0
    """Metric maps with a greater median are all far; 0 lets them pass."""
    min_confidence: float = 0.0
    """Maps with a lower mean confidence are rejected, in the unit of the lifter (VGGT: 1 and more)."""
    min_fov_deg: float = 15.0
    """Smallest field of view, horizontal and vertical."""
    max_fov_deg: float = 130.0
    """Largest field of view, horizontal and vertical."""
    max_off_centre: float = 0.1
    """Maps whose principal point lies farther from their middle, as a share of the side, have intrinsics of
    another image size. Up to 0.5, the edge, for cropped pictures."""

    def validate(self) -> None:
        """Raise ValueError for a value that cannot be."""
        for name in ("min_letter_share", "min_valid_depth", "min_relief"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gates: {name} is {getattr(self, name)}, expected a share from 0 to 1")
        if not 0 < self.max_megapixels <= PILLOW_MEGAPIXELS:
            raise ValueError(
                f"gates: max_megapixels is {self.max_megapixels}, expected above 0 to {PILLOW_MEGAPIXELS}"
            )
        if not -1 <= self.duplicate_distance < HASH_BITS // 4:
            raise ValueError(
                f"gates: duplicate_distance is {self.duplicate_distance}, expected -1 to {HASH_BITS // 4 - 1}"
            )
        if not 0 < self.max_off_centre <= 0.5:
            raise ValueError(f"gates: max_off_centre is {self.max_off_centre}, expected above 0 to 0.5")
        if not 0 < self.min_fov_deg < self.max_fov_deg < 180:
            raise ValueError(
                f"gates: min_fov_deg {self.min_fov_deg} and max_fov_deg {self.max_fov_deg} must rise from "
                "above 0 to below 180"
            )


@dataclass
class ConventionConfig:
    """How lifted maps become samples."""

    z_up: bool = True
    """World of an image: its camera's frame turned so that z is up; false keeps x right, y down, z ahead."""
    median_depth_m: float = 2.5
    """Maps known up to scale are scaled to this median depth; 0 keeps the lifter's unit as metres."""
    scale_metric: bool = False
    """Scale metric maps to that median too."""
    drop_confidence: float = 0.1
    """Share of the pixels, the least confident ones, that lose their depth; 0 keeps all. Only for lifters
    that tell their confidence."""
    max_depth_m: float = 0.0
    """Pixels farther away lose their depth (sky); 0 keeps all."""
    depth_unit_m: float = 0.001
    """Unit of the stored 16-bit depth; made coarser for an image that reaches farther than it can hold."""
    colour: bool = True
    """Keep the picture as a JPEG on the sample's grid, which embedding again and previews need."""
    jpeg_quality: int = 90
    """Quality of the kept picture."""

    def validate(self) -> None:
        """Raise ValueError for a value that cannot be."""
        if not 0 <= self.drop_confidence < 1:
            raise ValueError(f"convention: drop_confidence is {self.drop_confidence}, expected 0 to below 1")
        if self.depth_unit_m <= 0:
            raise ValueError(f"convention: depth_unit_m is {self.depth_unit_m}, expected more than 0")
        if self.median_depth_m < 0 or self.max_depth_m < 0:
            raise ValueError("convention: median_depth_m and max_depth_m must not be negative; 0 means off")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"convention: jpeg_quality is {self.jpeg_quality}, expected 1 to 100")
