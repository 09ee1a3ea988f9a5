"""ScanNet's .sens recordings as downloaded, without exporting them to files first:

    <scan>/<scan>.sens   <scan>/<scan>.txt (with axisAlignment)

A .sens file (version 4, little endian) is a header and frames one after another:

    uint32 version; uint64 length + name of the sensor
    float32 [4, 4] x 4: intrinsics and extrinsics of colour, then of depth
    int32 colour compression, int32 depth compression; uint32 x 4: widths and heights of colour and depth
    float32 units of depth per metre; uint64 number of frames
    each frame: float32 [4, 4] camera -> world; uint64 x 2 times; uint64 x 2 bytes of colour and of depth;
                colour (as is, PNG or JPEG), depth (uint16, as is or zlib)

What the header claims is compared with the file's size before anything is made for it: frames that cannot be
there are an error, and a file that merely ends early loses its last frames to one row of the rejects.

Frames are found by hopping from header to header and read when asked for. What else holds is as in the
exported layout (`poma3d.scenes.layouts.scannet`), and both give the same samples.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from poma3d.depth_files import SATURATED
from poma3d.scenes.config import ScanNetConfig
from poma3d.scenes.files import listed
from poma3d.scenes.frame import BadFrame, Frame, Reject
from poma3d.scenes.layouts.scannet import UNALIGNED, aligned, read_axis_alignment, text_file, with_text
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader

SOURCE = "scannet"
VERSION = 4
RAW_DEPTH, ZLIB_DEPTH = 0, 1
RAW_COLOUR, PNG_COLOUR, JPEG_COLOUR = 0, 1, 2
MATRIX = struct.Struct("<16f")
AFTER_MATRICES = struct.Struct("<iiIIIIfQ")
FRAME = struct.Struct("<16f4Q")
DEPTH_BYTES = 2
MOST_PIXELS = 2**24
"""Of a depth map: fifty times a Kinect's; a header that claims more is damaged."""
LONGEST_NAME = 4096
"""A sensor's name that claims to be longer is no name."""


@dataclass(frozen=True)
class SensHeader:
    """What a .sens file says before its first frame."""

    intrinsics: np.ndarray
    """float64 [4] of the depth camera."""
    colour_compression: int
    depth_compression: int
    colour_size: tuple[int, int]
    """(h, w)."""
    size: tuple[int, int]
    """(h, w) of depth."""
    units_per_metre: float
    frames: int
    first_frame: int
    """Offset in bytes."""


@dataclass(frozen=True, kw_only=True)
class Recording(Scan):
    """A .sens file and where its frames begin."""

    path: Path
    header: SensHeader
    offsets: list[int]


class ScanNetSensReader(ScanReader[ScanNetConfig, Recording]):
    """Reads .sens recordings."""

    source = SOURCE
    title = "ScanNet as downloaded (.sens)"
    marks = (
        Mark("recording", ("{scan}.sens",)),
        Mark("axis alignment", ("{scan}.txt",), needed=False),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Names of the folders that hold a recording of their name."""
        found = sorted(path.stem for path in listed(root, "*/*.sens") if path.stem == path.parent.name)
        if not found:
            raise ValueError(f"{root}: no scan here: no file such as scene0000_00/scene0000_00.sens")
        return found

    def inputs(self, scene_id: str) -> list[Path]:
        """The scan's folder and its text file."""
        return with_text(scene_id, self.folder(scene_id), self.config.texts)

    def open(self, scene_id: str, folder: Path) -> Recording:
        """One recording, of which only headers are read."""
        path = folder / f"{scene_id}.sens"
        try:
            with path.open("rb") as file:
                header = read_header(file, path)
                size = path.stat().st_size
                _check_claims(path, header, size)
                offsets = _frame_offsets(file, header, size)
        except OSError as error:
            raise ValueError(f"scene {scene_id}: {path} cannot be read ({error})") from error
        if not offsets:
            raise ValueError(f"scene {scene_id}: {path} holds no whole frame of {header.frames}")
        text = text_file(scene_id, folder, self.config.texts)
        return Recording(
            folder=folder,
            frame_ids=[str(number) for number in range(len(offsets))],
            transform=np.eye(4) if text is None else read_axis_alignment(text),
            intrinsics=header.intrinsics,
            depth_scale=1 / header.units_per_metre,
            left_out=_cut_off(scene_id, path, len(offsets), header.frames),
            warnings=[UNALIGNED] if text is None else [],
            path=path,
            header=header,
            offsets=offsets,
        )

    def load(self, scan: Recording, frame_id: str) -> Frame:
        """One frame."""
        with scan.path.open("rb") as file:
            file.seek(scan.offsets[int(frame_id)])
            values = FRAME.unpack(file.read(FRAME.size))
            pose = aligned(scan.transform, np.array(values[:16], np.float64).reshape(4, 4))
            colour, depth = file.read(values[18]), file.read(values[19])
        return Frame(
            frame_id=frame_id,
            depth=_depth(depth, scan.header),
            intrinsics=scan.header.intrinsics,
            pose=pose,
            picture=_colour(colour, scan.header),
        )


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
    colour, depth, colour_width, colour_height, width, height, units_per_metre, frames = values
    if colour not in (RAW_COLOUR, PNG_COLOUR, JPEG_COLOUR):
        raise ValueError(f"{path}: colour compression {colour}; known are 0 (none), 1 (PNG) and 2 (JPEG)")
    if depth not in (RAW_DEPTH, ZLIB_DEPTH) or not units_per_metre > 0:
        raise ValueError(
            f"{path}: depth compression {depth} with {units_per_metre:g} units per metre; known are "
            f"{RAW_DEPTH} (none) and {ZLIB_DEPTH} (zlib)"
        )
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"{path}: the header claims depth maps of {width} x {height}, which is no depth map")
    camera = matrices[2]
    intrinsics = np.array([camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2]])
    return SensHeader(
        intrinsics=intrinsics,
        colour_compression=colour,
        depth_compression=depth,
        colour_size=(colour_height, colour_width),
        size=(height, width),
        units_per_metre=units_per_metre,
        frames=frames,
        first_frame=file.tell(),
    )


def _check_claims(path: Path, header: SensHeader, size: int) -> None:
    """Raise ValueError where the file is too small for what its header claims, whatever its frames hold."""
    most = (size - header.first_frame) // FRAME.size
    if header.frames > most:
        raise ValueError(
            f"{path}: the header claims {header.frames} frames, but {size} bytes hold at most {most}: "
            "a damaged header, or a small part of a download"
        )


def _cut_off(scene_id: str, path: Path, found: int, claimed: int) -> list[Reject]:
    """One row for the frames that a file that ends early has lost."""
    if found == claimed:
        return []
    lost = str(found) if claimed - found == 1 else f"{found}-{claimed - 1}"
    value = f"{path.name} ends before {claimed - found} of the {claimed} frames in its header"
    return [Reject(scene_id, lost, "unreadable depth", value)]


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


def _unzipped(data: bytes, header: SensHeader) -> bytes:
    """The depth map's bytes, and never more than one more than they should be."""
    unzip = zlib.decompressobj()
    return unzip.decompress(data, header.size[0] * header.size[1] * DEPTH_BYTES + 1)


def _colour(data: bytes, header: SensHeader) -> np.ndarray | bytes:
    """Uncompressed colour uint8 [h, w, 3], or the bytes of a picture file; or BadFrame."""
    if header.colour_compression != RAW_COLOUR:
        return data
    try:
        return np.frombuffer(data, np.uint8).reshape(*header.colour_size, 3)
    except ValueError as error:
        raise BadFrame("unreadable colour", f"{len(data)} bytes, {error}") from error


def _depth(data: bytes, header: SensHeader) -> np.ndarray:
    """uint16 [h, w], or BadFrame."""
    try:
        raw = _unzipped(data, header) if header.depth_compression == ZLIB_DEPTH else data
        depth = np.frombuffer(raw, "<u2").reshape(header.size)
    except (zlib.error, ValueError) as error:
        raise BadFrame("unreadable depth", str(error)) from error
    return np.where(depth == SATURATED, 0, depth).astype(np.uint16)
