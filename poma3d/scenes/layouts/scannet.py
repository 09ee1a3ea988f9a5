"""ScanNet as its exporter writes it to disk, one folder per scan:

    <scan>/depth/N.png (16-bit mm)   <scan>/color/N.jpg|png   <scan>/pose/N.txt (4x4 camera -> world)
    <scan>/intrinsic/intrinsic_depth.txt (4x4)                <scan>/<scan>.txt (with axisAlignment)

as `scannet_frames_25k` has it, with `<scan>/intrinsics_depth.txt` beside the folders and no text file, and as
`posed_images` of mmdetection3d and EmbodiedScan has it, all in one folder:

    <scan>/N.png (depth, mm)  <scan>/N.jpg  <scan>/N.txt (camera -> world)  <scan>/depth_intrinsic.txt (4x4)

where `intrinsic.txt` is the colour camera's and serves neither depth nor anything here. Sources: ScanNet's
SensReader/python/SensorData.py at 0459a70 (names and conventions of the export), open-mmlab/mmdetection3d
data/scannet/extract_posed_images.py at 3f2a132 (`posed_images`, without depth; EmbodiedScan's version of that
script adds N.png and depth_intrinsic.txt); public readers of `scannet_frames_25k`.

The axis alignment is applied to the poses; it may lie elsewhere (`texts`). The hidden test scans have none
and keep their world, which is z-up too. A scan without its text file is unaligned, and a warning says so. The
text's depthWidth and depthHeight tell intrinsics of another size. Frames that were not localised have a pose
of -inf and are rejected. Colour is larger than depth and covers the same view; it is resized to the depth's
grid. `captions.json` is optional, with frame numbers as ids (`poma3d.scenes.scan_captions`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from poma3d.scenes.config import ScanNetConfig
from poma3d.scenes.files import (
    first_there,
    listed,
    read_depth,
    read_intrinsics,
    read_matrix,
    rigid,
    usual_size,
)
from poma3d.scenes.frame import BadFrame, Frame
from poma3d.scenes.marks import Mark
from poma3d.scenes.scan_captions import CAPTIONS_FILE
from poma3d.scenes.scans import Scan, ScanReader, without_depth
from poma3d.scenes.text_files import axis_alignment, read_text

SOURCE = "scannet"
INTRINSICS = ("intrinsic/intrinsic_depth.txt", "intrinsics_depth.txt", "depth_intrinsic.txt")
"""Files of the depth camera, in the export, in scannet_frames_25k and in posed_images."""
UNALIGNED = (
    "no text file with axisAlignment: the poses are not aligned (reader.*.texts says where such files are)"
)


class ScanNetReader(ScanReader[ScanNetConfig, Scan]):
    """Reads exported ScanNet scans."""

    source = SOURCE
    title = "ScanNet as exported on disk"
    marks = (
        Mark("depth", ("depth/*.png", "[0-9]*.png")),
        Mark("colour", ("color/*.jpg", "color/*.png", "[0-9]*.jpg")),
        Mark("poses", ("pose/*.txt", "[0-9]*.txt")),
        Mark("intrinsics of depth", INTRINSICS),
        Mark("axis alignment", ("{scan}.txt",), needed=False),
        Mark("captions", (CAPTIONS_FILE,), needed=False),
    )

    def find(self, root: Path) -> list[str]:
        """Names of the folders that hold `depth/`, or the files of `posed_images`."""
        found = {folder.parent.name for folder in listed(root, "*/depth") if folder.is_dir()}
        found |= {path.parent.name for path in listed(root, "*/depth_intrinsic.txt")}
        if not found:
            raise ValueError(
                f"{root}: no scan here: no folder such as scene0000_00/depth, no file such as "
                "scene0000_00/depth_intrinsic.txt"
            )
        return sorted(found)

    def open(self, scene_id: str, folder: Path) -> Scan:
        """One scan, its poses to be aligned."""
        depth = folder / "depth" if (folder / "depth").is_dir() else folder
        names = "*.png" if depth != folder else "[0-9]*.png"
        frame_ids = sorted((path.stem for path in listed(depth, names)), key=_number)
        if not frame_ids:
            raise ValueError(f"scene {scene_id}: no frames named depth/0.png, or 00000.png, in {folder}")
        text = text_file(scene_id, folder, self.config.texts)
        size = usual_size([depth / f"{frame_id}.png" for frame_id in frame_ids])
        intrinsics = read_intrinsics(first_there(folder, INTRINSICS))
        if text is not None and intrinsics is not None and size is not None:
            check_size(text, intrinsics, size)
        return Scan(
            folder=folder,
            frame_ids=frame_ids,
            transform=np.eye(4) if text is None else read_axis_alignment(text),
            intrinsics=intrinsics,
            size=size,
            left_out=without_depth(scene_id, _posed(folder), frame_ids),
            warnings=[UNALIGNED] if text is None else [],
        )

    def inputs(self, scene_id: str) -> list[Path]:
        """The scan's folder and its text file."""
        return with_text(scene_id, self.folder(scene_id), self.config.texts)

    def load(self, scan: Scan, frame_id: str) -> Frame:
        """One frame."""
        if scan.intrinsics is None:
            raise BadFrame("no intrinsics", f"no readable {' or '.join(INTRINSICS)}")
        depth, pose_file, colours = _files(scan.folder, frame_id)
        pose = read_matrix(pose_file, (4, 4), "pose")
        return Frame(
            frame_id=frame_id,
            depth=read_depth(depth, scan.size),
            intrinsics=scan.intrinsics,
            pose=aligned(scan.transform, pose),
            picture=next((path for path in colours if path.exists()), colours[0]),
        )


def _files(folder: Path, frame_id: str) -> tuple[Path, Path, list[Path]]:
    """Depth, pose, and the names that colour may have."""
    if (folder / "depth").is_dir():
        colours = [folder / "color" / f"{frame_id}.{suffix}" for suffix in ("jpg", "png")]
        return folder / "depth" / f"{frame_id}.png", folder / "pose" / f"{frame_id}.txt", colours
    return folder / f"{frame_id}.png", folder / f"{frame_id}.txt", [folder / f"{frame_id}.jpg"]


def _posed(folder: Path) -> list[str]:
    """Ids of the frames that have a pose."""
    if (folder / "depth").is_dir():
        return [path.stem for path in listed(folder / "pose", "*.txt")]
    return [path.stem for path in listed(folder, "[0-9]*.txt")]


def text_file(scene_id: str, folder: Path, texts: str | None) -> Path | None:
    """SCAN.txt of a scan, in its folder or in that of all texts; None where there is none."""
    name = f"{scene_id}.txt"
    places = (
        [folder / name]
        if texts is None
        else [folder / name, Path(texts) / name, Path(texts) / scene_id / name]
    )
    return next((path for path in places if path.is_file()), None)


def with_text(scene_id: str, folder: Path, texts: str | None) -> list[Path]:
    """A scan's folder, and its text file where that lies elsewhere."""
    text = text_file(scene_id, folder, texts)
    return [folder] if text is None or text.parent == folder else [folder, text]


def check_size(text: Path, intrinsics: np.ndarray, size: tuple[int, int]) -> None:
    """Compare the intrinsics with the size that the text states, where the depth maps have another.

    The text describes the recording; depth exported at another size needs intrinsics of that size, which
    their principal point tells: it lies near the middle of the image that they are for.

    Raises:
        ValueError: the intrinsics are for the stated size, the maps [h, w] have another.
    """
    found = dict(re.findall(r"^\s*depth(Width|Height)\s*=\s*(\d+)", read_text(text), re.MULTILINE))
    if len(found) < len(size):
        return
    stated = (int(found["Height"]), int(found["Width"]))
    off = [abs(2 * intrinsics[2] / w - 1) + abs(2 * intrinsics[3] / h - 1) for h, w in (stated, size)]
    if stated != size and off[0] < off[1]:
        raise ValueError(
            f"the depth maps are {size[1]} x {size[0]}, but the intrinsics are for "
            f"{stated[1]} x {stated[0]}, the size in {text}: export depth at that size, or scale them"
        )


def aligned(alignment: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """A pose [4, 4] in the aligned world, [3, 4].

    Raises:
        BadFrame: no rigid motion, or the frame was not localised: -inf must not meet the alignment, where it
            would become NaN.
    """
    if not np.isfinite(pose).all():
        raise BadFrame("non-finite pose", str(pose[0].tolist()))
    return rigid(alignment @ pose)


def read_axis_alignment(path: Path) -> np.ndarray:
    """The 4x4 axis alignment of a scan's text file; the identity without file or line.

    Raises:
        ValueError: the line does not hold 16 numbers.
    """
    numbers = axis_alignment(path) if path.exists() else None
    return np.eye(4) if numbers is None else np.array(numbers).reshape(4, 4)


def _number(name: str) -> tuple[int, str]:
    """Sorts frame 2 before frame 10."""
    digits = re.search(r"\d+", name)
    return (int(digits[0]) if digits else -1, name)
