"""Where a set of captioned images lies, and its layout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from plinth.counts import Count
from plinth.locations import Location
from plinth.schema import MISSING


class SetKind(Enum):
    """Layouts that can be read."""

    tar = "tar"
    parquet = "parquet"
    folder = "folder"


@dataclass
class ImageSetConfig:
    """One set of images with captions."""

    uri: Location = MISSING
    """A folder (path or s3://bucket/prefix) that holds *.tar or *.parquet at any depth, one such file, or the
    folder of images."""
    kind: SetKind = SetKind.tar
    """tar (WebDataset: NAME.jpg with NAME.txt or NAME.json), parquet, or folder (images, a caption file)."""
    caption_file: str = "captions.jsonl"
    """folder: the JSONL or CSV file in it, one line per image."""
    image: str = "image"
    """parquet: column of image bytes or paths. folder: field of the path."""
    caption: str = "caption"
    """Column or field of the caption, a text or a list of texts; in NAME.json of a tar too. Empty where there
    is none (with gates.require_caption off)."""
    depth: str = "depth"
    """Column or field of a 16-bit depth picture (bytes or path) for the lifter `given`; in a tar it is the
    member NAME.depth.png, for `depth`."""
    intrinsics: str = "intrinsics"
    """Column or field of [fx, fy, cx, cy] in pixels of the depth picture; in NAME.json of a tar."""
    depth_unit_m: float = 0.001
    """Metres per unit of those depth pictures."""
    images_uri: Location | None = None
    """Where paths of images lead; empty for the set's own folder."""
    lines_per_piece: Count = 4096
    """folder: lines of the caption file that one task scans."""
