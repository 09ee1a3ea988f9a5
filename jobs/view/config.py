"""What a scene's page holds; the flags of `poma view` and `poma locate` are its fields."""

from __future__ import annotations

from dataclasses import dataclass

from plinth.counts import Count


@dataclass(frozen=True)
class PageConfig:
    """Bounds of a page: with these it stays under about 6 MB, whatever the data set."""

    points: Count = 150_000
    """Points of the cloud at most; denser scenes are thinned evenly."""

    views: Count = 48
    """Views at most: evenly spaced over the scene, or the best of a text."""

    picture_px: Count = 320
    """Longer side of the pictures at most."""

    ceiling_m: float = 2.1
    """At first, what is higher than this above the floor is hidden, so that one looks into the room."""

    camera_m: float = 0.3
    """Length of the pyramids that stand for the cameras, metres."""
