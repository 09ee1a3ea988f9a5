"""BundleFusion and 12-Scenes, one folder per recording:

    <scan>/info.txt                                sizes, m_depthShift, intrinsics of depth and colour (4x4)
    <scan>/data/frame-NNNNNN.depth.png             16-bit, m_depthShift a metre (1000); or beside info.txt
    <scan>/data/frame-NNNNNN.color.jpg|png         12-Scenes: larger than depth, of its own camera
    <scan>/data/frame-NNNNNN.pose.txt              4x4 camera -> world; -inf where tracking was lost

Pictures of another camera are brought to the depth's view (`poma3d.scenes.colour`). info.txt has extrinsics,
too, which are the identity in both sets; others are not applied, and a warning says so. Worlds are those of
the first camera: up is estimated, or `up`.

Sources: graphics.stanford.edu/projects/{bundlefusion,reloc}; sensorData.h of niessner/BundleFusion, which
writes info.txt.
"""

from __future__ import annotations

from pathlib import Path

from poma3d.scenes.config import BundleFusionConfig
from poma3d.scenes.files import first_there, frame_stems, read_pose, usual_size
from poma3d.scenes.frame import BadFrame
from poma3d.scenes.layouts.three_rscan import read_info
from poma3d.scenes.marks import Mark
from poma3d.scenes.posed.reader import CAPTIONS, Camera, Posed, PosedReader
from poma3d.scenes.scans import without_depth

SOURCE = "bundle_fusion"
INFO_FILE, DATA = "info.txt", "data"
DEPTH_SUFFIX, POSE_SUFFIX = ".depth.png", ".pose.txt"
COLOUR_SUFFIXES = (".color.jpg", ".color.png")
MOVED = "info.txt has extrinsics of depth or colour that are not the identity: they are not applied"


class BundleFusionReader(PosedReader[BundleFusionConfig]):
    """Reads BundleFusion and 12-Scenes."""

    source = SOURCE
    title = "BundleFusion or 12-Scenes"
    markers = (INFO_FILE,)
    marks = (
        Mark("sizes and intrinsics", (INFO_FILE,)),
        Mark("depth", (f"{DATA}/frame-*{DEPTH_SUFFIX}", f"frame-*{DEPTH_SUFFIX}")),
        Mark(
            "colour",
            tuple(f"{part}frame-*{suffix}" for part in (f"{DATA}/", "") for suffix in COLOUR_SUFFIXES),
        ),
        Mark("poses", (f"{DATA}/frame-*{POSE_SUFFIX}", f"frame-*{POSE_SUFFIX}")),
        CAPTIONS,
    )

    def holds_scan(self, folder: Path) -> bool:
        """info.txt is a name that others use, too."""
        return bool(frame_stems(_frames(folder), DEPTH_SUFFIX))

    def recording(self, scene_id: str, folder: Path) -> Posed:
        """The frames that have a depth map."""
        info = read_info(folder / INFO_FILE)
        frames = _frames(folder)
        frame_ids = frame_stems(frames, DEPTH_SUFFIX)
        size = usual_size([frames / f"{frame_id}{DEPTH_SUFFIX}" for frame_id in frame_ids])
        if None not in (size, info.size) and size != info.size:
            raise ValueError(
                f"{folder / INFO_FILE}: the intrinsics are for depth of {list(info.size or ())}, the maps "
                f"are {list(size or ())} [h, w]: correct m_depthWidth, m_depthHeight and the intrinsics"
            )
        scan = Posed(
            folder,
            scene_id=scene_id,
            camera=Camera(info.intrinsics, info.size),
            colour_camera=info.colour_camera,
            depth_scale=1 / info.units_per_metre,
            warnings=[MOVED] if info.is_moved else [],
        )
        for frame_id in frame_ids:
            try:
                pose = read_pose(frames / f"{frame_id}{POSE_SUFFIX}")
            except BadFrame as bad:
                scan.leave_out(frame_id, bad.reason, bad.value)
                continue
            scan.keep(frame_id, pose, frames / f"{frame_id}{DEPTH_SUFFIX}", _picture(frames, frame_id))
        scan.left_out.extend(without_depth(scene_id, frame_stems(frames, POSE_SUFFIX), frame_ids))
        return scan


def _frames(folder: Path) -> Path:
    """Where the frames lie."""
    return folder / DATA if (folder / DATA).is_dir() else folder


def _picture(folder: Path, frame_id: str) -> Path:
    """The frame's colour file, or where it should be."""
    return first_there(folder, (f"{frame_id}{suffix}" for suffix in COLOUR_SUFFIXES))
