"""Which rooms are made, and how they are looked at."""

from __future__ import annotations

from dataclasses import dataclass

from poma3d.counts import Count


@dataclass
class RoomsConfig:
    """Procedural rooms. Training and held-out rooms are disjoint ranges of indices under one seed."""

    rooms: Count = 64
    """Number of rooms."""
    first: int = 0
    """Index of the first room: [first, first + rooms) are read, so held-out rooms start elsewhere."""
    seed: int = 0
    """Seed of all rooms; room i depends on (seed, i) only."""
    views: Count = 4
    """Frames rendered of each room."""
    image_size: Count = 96
    """Height and width of a frame in pixels."""
    field_of_view_deg: float = 72.0
    """Horizontal field of view of the cameras."""
    eye_height_low_m: float = 1.25
    """Least height of a camera above the floor."""
    eye_height_high_m: float = 1.75
    """Greatest height of a camera above the floor."""
    camera_clearance_m: float = 0.45
    """Least distance of a camera from walls and from furniture that reaches up to it."""
    camera_candidates: Count = 128
    """Random poses among which a room's views are chosen."""
    visible_share: float = 0.004
    """A piece is in view when it covers at least this share of the image's pixels."""
    colour: bool = True
    """Render colour pictures besides depth."""
