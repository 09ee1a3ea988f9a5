"""3RScan as released, one folder per scan with its `sequence.zip`, read in place or unpacked to `sequence/`:

    <scan>/sequence/_info.txt                      sizes, m_calibrationDepthIntrinsic (4x4), m_depthShift
    <scan>/sequence/frame-NNNNNN.depth.pgm         16-bit, m_depthShift a metre (1000; 5000 in converted sets)
    <scan>/sequence/frame-NNNNNN.color.jpg         of m_calibrationColorIntrinsic, where that is another view
    <scan>/sequence/frame-NNNNNN.pose.txt          4x4 camera -> world

The world is metric with z up (`up` can say otherwise). A phone held upright stores a rotated landscape image;
pictures are turned upright. `captions.json` is optional (`poma3d.scenes.scan_captions`).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from poma3d.geometry import rotation_to_z_up
from poma3d.scenes.colour import colour_camera_of
from poma3d.scenes.config import ThreeRScanConfig
from poma3d.scenes.files import listed, read_depth, read_pose, usual_size
from poma3d.scenes.frame import BadFrame, ColourCamera, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader, upright, without_depth
from poma3d.scenes.text_files import File, floats, read_lines

SOURCE = "3rscan"
SEQUENCE, ARCHIVE, INFO_FILE = "sequence", "sequence.zip", "_info.txt"
DEPTH_SUFFIX = ".depth.pgm"
POSE_SUFFIX = ".pose.txt"
COLOUR_INTRINSICS = "m_calibrationColorIntrinsic"
EXTRINSICS = ("m_calibrationDepthExtrinsic", "m_calibrationColorExtrinsic")
SAME_PLACE = 1e-3
"""Metres, or radians: extrinsics below are the identity."""
UNITS_PER_METRE = 1000.0
"""Where `_info.txt` has no m_depthShift."""
LARGEST_MEMBER = 2**26
"""Bytes of a file in an archive, unpacked; a picture of the sensor has less than one percent of this."""


@dataclass(frozen=True)
class Info:
    """What `_info.txt` says of depth."""

    intrinsics: np.ndarray
    """float64 [4]: fx, fy, cx, cy."""
    size: tuple[int, int] | None
    """(h, w); None where it does not say."""
    units_per_metre: float
    colour_camera: ColourCamera | None = None
    """None where it does not say, or where it is the depth's view."""
    is_moved: bool = False
    """Depth or colour has extrinsics that are not the identity."""


@dataclass(frozen=True)
class Sequenced(Scan):
    """A scan whose files lie in a folder or in an archive."""

    files: dict[str, File] = field(default_factory=dict)
    """By name."""
    colour_camera: ColourCamera | None = None


class ThreeRScanReader(ScanReader[ThreeRScanConfig, Sequenced]):
    """Reads 3RScan."""

    source = SOURCE
    title = "3RScan"
    marks = (
        Mark("sizes and intrinsics", (f"{SEQUENCE}/{INFO_FILE}", ARCHIVE)),
        Mark("depth", (f"{SEQUENCE}/frame-*{DEPTH_SUFFIX}", ARCHIVE)),
        Mark("colour", (f"{SEQUENCE}/frame-*.color.jpg", ARCHIVE)),
        Mark("poses", (f"{SEQUENCE}/frame-*{POSE_SUFFIX}", ARCHIVE)),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Names of the folders that hold `sequence/_info.txt` or `sequence.zip`."""
        found = {path.parent.parent.name for path in listed(root, f"*/{SEQUENCE}/{INFO_FILE}")}
        found |= {path.parent.name for path in listed(root, f"*/{ARCHIVE}")}
        if not found:
            raise ValueError(
                f"{root}: no scan here: no file such as SCAN/{ARCHIVE} or SCAN/{SEQUENCE}/{INFO_FILE}"
            )
        return sorted(found)

    def open(self, scene_id: str, folder: Path) -> Sequenced:
        """One scan; its poses say how the phone was held."""
        files = _files(folder)
        frame_ids = [n.removesuffix(DEPTH_SUFFIX) for n in sorted(files) if n.endswith(DEPTH_SUFFIX)]
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named frame-000000{DEPTH_SUFFIX} in {folder}")
        posed = [name.removesuffix(POSE_SUFFIX) for name in files if name.endswith(POSE_SUFFIX)]
        if INFO_FILE not in files:
            raise ValueError(f"scene {scene_id}: no {INFO_FILE} in {folder / SEQUENCE} or {folder / ARCHIVE}")
        info = read_info(files[INFO_FILE])
        size = usual_size([files[f"{frame_id}{DEPTH_SUFFIX}"] for frame_id in frame_ids])
        if None not in (size, info.size) and size != info.size:
            raise ValueError(
                f"{files[INFO_FILE]}: the intrinsics are for depth of {list(info.size or ())}, the maps are "
                f"{list(size or ())} [h, w]: correct m_depthWidth, m_depthHeight and the intrinsics"
            )
        scan = Sequenced(
            folder=folder,
            frame_ids=frame_ids,
            transform=rotation_to_z_up(np.asarray(self.config.up, np.float64)),
            intrinsics=info.intrinsics,
            size=size,
            depth_scale=1 / info.units_per_metre,
            files=files,
            left_out=without_depth(scene_id, posed, frame_ids),
            colour_camera=info.colour_camera,
        )
        return upright(scan, _pose) if self.config.upright else scan

    def load(self, scan: Sequenced, frame_id: str) -> Frame:
        """One frame."""
        assert scan.intrinsics is not None
        return Frame(
            frame_id=frame_id,
            depth=read_depth(scan.files[f"{frame_id}{DEPTH_SUFFIX}"], scan.size),
            intrinsics=scan.intrinsics,
            pose=_pose(scan, frame_id),
            picture=_picture(scan, f"{frame_id}.color.jpg"),
            colour_camera=scan.colour_camera,
        )


def _files(folder: Path) -> dict[str, File]:
    """Name -> file of a scan's sequence, unpacked or in its archive; hidden names left out.

    Raises:
        ValueError: the archive is damaged.
    """
    if (folder / SEQUENCE).is_dir():
        return {path.name: path for path in listed(folder / SEQUENCE, "*")}
    path = folder / ARCHIVE
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole zip archive ({error})") from error
    names = []
    for member in archive.infolist():
        if member.file_size > LARGEST_MEMBER:
            raise ValueError(
                f"{path}: {member.filename} claims {member.file_size} bytes: no frame is so large"
            )
        if not member.is_dir():
            names.append(member.filename)
    last = {name: name.rpartition("/")[2] for name in names}
    return {short: zipfile.Path(archive, name) for name, short in last.items() if not short.startswith(".")}


def _picture(scan: Sequenced, name: str) -> Path | bytes:
    """Colour: the file, or its bytes where it lies in an archive."""
    file = scan.files.get(name)
    if file is None or isinstance(file, Path):
        return file or scan.folder / SEQUENCE / name
    return _member(file, "colour")


def _member(file: zipfile.Path, what: str) -> bytes:
    """The bytes of an archive's member, or BadFrame."""
    try:
        return file.read_bytes()
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise BadFrame(f"unreadable {what}", f"{file.name}: {error}") from error


def read_info(path: File) -> Info:
    """Intrinsics, size and unit of depth from `_info.txt`.

    Raises:
        ValueError: no such file, or a line that is not what it should be.
    """
    try:
        lines = read_lines(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    values = {key.strip(): value for key, _, value in (line.partition("=") for line in lines)}
    matrix = _numbers(path, values, "m_calibrationDepthIntrinsic", 16).reshape(4, 4)
    size = _size(path, values, "depth")
    units = UNITS_PER_METRE
    if "m_depthShift" in values:
        units = float(_numbers(path, values, "m_depthShift", 1)[0])
    if not 0 < units < np.inf:
        raise ValueError(f"{path}: m_depthShift is {units:g}, expected units per metre, such as 1000")
    intrinsics = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    colour, colour_size = None, _size(path, values, "color")
    if COLOUR_INTRINSICS in values and size is not None and colour_size is not None:
        matrix = _numbers(path, values, COLOUR_INTRINSICS, 16).reshape(4, 4)
        camera = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
        colour = colour_camera_of(intrinsics, size, ColourCamera(camera, colour_size))
    moved = [_numbers(path, values, key, 16) for key in EXTRINSICS if key in values]
    is_moved = any(np.abs(matrix - np.eye(4).reshape(-1)).max() > SAME_PLACE for matrix in moved)
    return Info(intrinsics, size, units, colour, is_moved)


def _size(path: File, values: dict[str, str], what: str) -> tuple[int, int] | None:
    """(h, w) of the pictures of depth or color; None where it does not say."""
    if not {f"m_{what}Width", f"m_{what}Height"} <= set(values):
        return None
    width, height = (_numbers(path, values, f"m_{what}{side}", 1)[0] for side in ("Width", "Height"))
    return int(height), int(width)


def _numbers(path: File, values: dict[str, str], key: str, count: int) -> np.ndarray:
    """The numbers of a line, or ValueError."""
    try:
        numbers = np.array(floats(values[key]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {key} must be a line of {count} numbers ({error})") from error
    if len(numbers) != count:
        raise ValueError(f"{path}: {key} must be a line of {count} numbers, found {len(numbers)}")
    return numbers


def _pose(scan: Sequenced, frame_id: str) -> np.ndarray:
    """float64 [3, 4] in the z-up world, or BadFrame."""
    file = scan.files.get(f"{frame_id}{POSE_SUFFIX}")
    if file is None:
        raise BadFrame("unreadable pose", f"no {frame_id}{POSE_SUFFIX}")
    return scan.transform @ read_pose(file)
