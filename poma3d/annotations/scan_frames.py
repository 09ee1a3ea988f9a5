"""Frames of ScanNet's scans from their own files: the text with `axisAlignment`, the mesh with its box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poma3d.annotations.poses import ScanFrame
from poma3d.scenes.text_files import axis_alignment

MESH = "_vh_clean_2.ply"
PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


class ScanFrames:
    """Frames of the scans below a folder, each read once: SCAN/SCAN.txt and SCAN/SCAN_vh_clean_2.ply, or both
    without the folder SCAN.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder of scans")
        self.root = root
        self._known: dict[str, ScanFrame | None] = {}

    def frame(self, scene_id: str, *, mesh: bool) -> ScanFrame | None:
        """The frame of a scan; None without its text file.

        Args:
            mesh: whether the centre is wanted.

        Raises:
            ValueError: a file is damaged.
        """
        key = f"{scene_id}\0{mesh}"
        if key not in self._known:
            self._known[key] = self._read(scene_id, mesh)
        return self._known[key]

    def _read(self, scene_id: str, mesh: bool) -> ScanFrame | None:
        text = self._find(scene_id, f"{scene_id}.txt")
        if text is None:
            return None
        ply = self._find(scene_id, f"{scene_id}{MESH}") if mesh else None
        try:
            numbers = axis_alignment(text)
            centre = None if ply is None else box_centre(ply)
        except OSError as error:
            raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None
        alignment = None if numbers is None else np.array(numbers).reshape(4, 4)
        return ScanFrame(alignment, centre)

    def _find(self, scene_id: str, name: str) -> Path | None:
        if "/" in scene_id or "\\" in scene_id or "\0" in scene_id or scene_id.startswith("."):
            return None  # an id from a file must not lead out of the folder
        places = (self.root / scene_id / name, self.root / name)
        return next((path for path in places if path.is_file()), None)


def box_centre(path: Path) -> np.ndarray:
    """Centre of the bounding box of a mesh's vertices, float64 [3] in metres.

    Raises:
        ValueError: no PLY file with x, y and z of its vertices, cut short, or without vertices.
    """
    points = read_vertices(path)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{path}: no vertices, or some that are not finite")
    centre: np.ndarray = (points.min(axis=0) + points.max(axis=0)) / 2
    return centre


def read_vertices(path: Path) -> np.ndarray:
    """The vertices of a PLY file, float64 [n, 3].

    Raises:
        ValueError: no such file; says what was found.
    """
    content = path.read_bytes()
    end = content.find(b"end_header")
    stop = content.find(b"\n", end) + 1
    if not content.startswith(b"ply") or end < 0 or not stop:
        raise ValueError(f"{path}: no PLY file")
    words = [line.split() for line in content[:end].decode("ascii", "replace").splitlines()]
    words = [line for line in words if line and line[0] not in ("comment", "obj_info")]
    layout = next((line[1] for line in words if len(line) > 1 and line[0] == "format"), "")
    count, fields = _vertex(words, path)
    names = [name for name, _ in fields]
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: vertices without x, y and z")
    if layout == "ascii":
        lines = content[stop:].decode("ascii", "replace").splitlines()[:count]
        try:
            table = np.array([line.split()[: len(names)] for line in lines], np.float64)
            return np.stack([table.reshape(count, -1)[:, names.index(axis)] for axis in "xyz"], axis=1)
        except ValueError as error:
            raise ValueError(f"{path}: vertices that are no numbers, or too few ({error})") from None
    order = BYTE_ORDERS.get(layout)
    if order is None:
        raise ValueError(f"{path}: PLY of format {layout or 'none'}")
    dtype = np.dtype([(name, order + kind) for name, kind in fields])
    if stop + count * dtype.itemsize > len(content):
        raise ValueError(f"{path}: cut short: {count} vertices are stated")
    vertices = np.frombuffer(content, dtype, count, stop)
    return np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _vertex(words: list[list[str]], path: Path) -> tuple[int, list[tuple[str, str]]]:
    """How many vertices, and their properties with the types of numpy."""
    elements = [line for line in words if line[0] == "element"]
    if not elements or len(elements[0]) != 3 or elements[0][1] != "vertex" or not elements[0][2].isdigit():
        raise ValueError(f"{path}: the first element of the PLY file is not its vertices")
    first = words.index(elements[0]) + 1
    fields = []
    for line in words[first:]:
        if line[0] != "property":
            break
        if len(line) != 3 or line[1] not in PLY_TYPES:
            raise ValueError(f"{path}: a vertex has the property {' '.join(line[1:])}")
        fields.append((line[2], PLY_TYPES[line[1]]))
    return int(elements[0][2]), fields
