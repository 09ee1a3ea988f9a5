"""ScanNet's .sens recordings as downloaded, without exporting them to files first:

    <scan>/<scan>.sens   <scan>/<scan>.txt (with axisAlignment)

A .sens file (version 4, little endian) is a header and frames one after another:

    uint32 version; uint64 length + name of the sensor
    float32 [4, 4] x 4: intrinsics and extrinsics of colour, then of depth
    int32 colour compression, int32 depth compression; uint32 x 4: widths and heights of colour and depth
    float32 units of depth per metre; uint64 number of frames
    each frame: float32 [4, 4] camera -> world; uint64 x 2 times; uint64 x 2 bytes of colour and of depth;
                colour (JPEG or PNG), depth (uint16, as is or zlib)

Frames are found by hopping from header to header and read when asked for. What else holds is as in the
exported layout (`poma3d.scenes.scannet`), and both give the same samples.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from poma3d.scenes.files import SATURATED, Captions, read_captions
from poma3d.scenes.frame import BadFrame, Frame, LazyFrames, SceneFrames
from poma3d.scenes.scannet import read_axis_alignment
from poma3d.scenes.three_rscan import named_scans

SOURCE = "scannet"
VERSION = 4
RAW_DEPTH, ZLIB_DEPTH = 0, 1
PNG_COLOUR, JPEG_COLOUR = 1, 2
MATRIX = struct.Struct("<16f")
AFTER_MATRICES = struct.Struct("<iiIIIIfQ")
FRAME = struct.Struct("<16f4Q")
LONGEST_NAME = 4096
"""A sensor's name that claims to be longer is no name."""


@dataclass
class ScanNetSensConfig:
    """ScanNet's .sens recordings."""

    root: str = ""
    """The folder that holds the scans' folders."""
    scans: list[str] | None = None
    """Names of the scans to read, as in a split file; all when not given."""


@dataclass(frozen=True)
class SensHeader:
    """What a .sens file says before its first frame."""

    intrinsics: np.ndarray
    """float64 [4] of the depth camera."""
    colour_compression: int
    depth_compression: int
    size: tuple[int, int]
    """(h, w) of depth."""
    units_per_metre: float
    frames: int
    first_frame: int
    """Offset in bytes."""


@dataclass(frozen=True)
class _Scan:
    """What loading any frame of a scan needs."""

    path: Path
    header: SensHeader
    offsets: list[int]
    captions: Captions
    alignment: np.ndarray

    def load(self, frame_id: str) -> Frame:
        """One frame, or BadFrame."""
        number = int(frame_id)
        if number >= len(self.offsets):
            raise BadFrame("unreadable depth", f"{self.path.name} ends before this frame")
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            values = FRAME.unpack(file.read(FRAME.size))
            pose = np.array(values[:16], np.float64).reshape(4, 4)
            if not np.isfinite(pose).all():  # before -inf meets the alignment and becomes NaN
                raise BadFrame("non-finite pose", str(pose[0].tolist()))
            colour, depth = file.read(values[18]), file.read(values[19])
        return Frame(
            frame_id=frame_id,
            depth=_depth(depth, self.header),
            intrinsics=self.header.intrinsics,
            pose=(self.alignment @ pose)[:3],
            picture=colour if self.header.colour_compression in (PNG_COLOUR, JPEG_COLOUR) else None,
            captions=self.captions.views.get(frame_id, []),
        )


class ScanNetSensReader:
    """Reads .sens recordings: `poma3d.scenes.frame.Reader`."""

    def __init__(self, config: ScanNetSensConfig) -> None:
        """Nothing is opened yet."""
        self.config = config

    def scene_ids(self) -> list[str]:
        """Names of the scans.

        Raises:
            ValueError: no folder below the root holds its recording, or a named scan is not there.
        """
        root = Path(self.config.root)
        found = sorted(path.stem for path in root.glob("*/*.sens") if path.stem == path.parent.name)
        if not found:
            raise ValueError(f"{root}: no scan here: no file such as scene0000_00/scene0000_00.sens")
        return named_scans(root, found, self.config.scans)

    def read(self, scene_id: str) -> SceneFrames:
        """One scan; its frames are read when asked for.

        Raises:
            ValueError: no .sens file of version 4, or a bad alignment or captions file.
        """
        folder = Path(self.config.root) / scene_id
        path = folder / f"{scene_id}.sens"
        try:
            with path.open("rb") as file:
                header = read_header(file, path)
                offsets = _frame_offsets(file, header, path.stat().st_size)
        except OSError as error:
            raise ValueError(f"scene {scene_id}: {path} cannot be read ({error})") from error
        captions = read_captions(folder)
        alignment = read_axis_alignment(folder / f"{scene_id}.txt")
        scan = _Scan(path, header, offsets, captions, alignment)
        frame_ids = [str(number) for number in range(header.frames)]
        scale = 1 / header.units_per_metre
        return SceneFrames(scene_id, SOURCE, LazyFrames(frame_ids, scan.load), captions.scene, scale)


def read_header(file: BinaryIO, path: Path) -> SensHeader:
    """The header of a .sens file that is open at its start.

    Raises:
        ValueError: another version, a compression that cannot be read, or no such file at all.
    """
    try:
        version, length = struct.unpack("<IQ", file.read(12))
        if version != VERSION or length > LONGEST_NAME:
            raise ValueError(f"{path}: not a .sens file of version {VERSION} (found {version})")
        file.seek(length, 1)
        matrices = [np.array(MATRIX.unpack(file.read(MATRIX.size))).reshape(4, 4) for _ in range(4)]
        values = AFTER_MATRICES.unpack(file.read(AFTER_MATRICES.size))
    except struct.error as error:
        raise ValueError(f"{path}: the file ends inside its header") from error
    colour, depth, _, _, width, height, units_per_metre, frames = values
    if depth not in (RAW_DEPTH, ZLIB_DEPTH) or not units_per_metre > 0:
        raise ValueError(
            f"{path}: depth compression {depth} with {units_per_metre:g} units a metre; known are "
            f"{RAW_DEPTH} (none) and {ZLIB_DEPTH} (zlib)"
        )
    camera = matrices[2]
    intrinsics = np.array([camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2]])
    return SensHeader(intrinsics, colour, depth, (height, width), units_per_metre, frames, file.tell())


def _frame_offsets(file: BinaryIO, header: SensHeader, size: int) -> list[int]:
    """Where each whole frame begins: fewer than the header says when the file ends early."""
    offsets: list[int] = []
    at = header.first_frame
    while len(offsets) < header.frames and at + FRAME.size <= size:
        file.seek(at + FRAME.size - 16)
        colour, depth = struct.unpack("<2Q", file.read(16))
        end = at + FRAME.size + colour + depth
        if end > size:
            break
        offsets.append(at)
        at = end
    return offsets


def _depth(data: bytes, header: SensHeader) -> np.ndarray:
    """uint16 [h, w], or BadFrame."""
    try:
        raw = zlib.decompress(data) if header.depth_compression == ZLIB_DEPTH else data
        depth = np.frombuffer(raw, "<u2").reshape(header.size)
    except (zlib.error, ValueError) as error:
        raise BadFrame("unreadable depth", str(error)) from error
    return np.where(depth == SATURATED, 0, depth).astype(np.uint16)
