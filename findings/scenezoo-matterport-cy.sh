#!/usr/bin/env bash
# Principal points in Matterport3D's undistorted_camera_parameters count from the lower left, those in its
# matterport_camera_intrinsics from the upper left (data_organization.md of niessner/Matterport). One released
# camera has cy 509.202 in the one and 513.798 in the other: together 1023, the last of 1024 rows. scenezoo 0.3.1
# hands out both as they stand, as cameras with y down, so undistorted views are 4.6 pixels beside themselves.
# It hurts whoever unprojects these views, with scenezoo or without. What we do: cy is turned over with the height
# of the depth map, and scenezoo is not used for this set.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 cachetools==8.0.2 \
    scipy==1.17.1 plyfile==1.1.5 fsspec==2026.9.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps scenezoo==0.3.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy
from PIL import Image

for heavy in ("open3d", "pandas", "av", "lz4", "lz4.block"):
    sys.modules[heavy] = MagicMock()  # meshes, tables and videos: no part of reading these views
import scenezoo

house = Path("v1/scans/17DRP5sb8fy")
identity = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
for kind in ("undistorted", "matterport"):
    for what, letter, image in (
        ("depth", "d", Image.fromarray(numpy.full((1024, 1280), 4000, numpy.uint16))),
        ("color", "i", Image.new("RGB", (1280, 1024))),
    ):
        (house / f"{kind}_{what}_images").mkdir(parents=True)
        image.save(house / f"{kind}_{what}_images" / f"03a8_{letter}0_0.{'png' if letter == 'd' else 'jpg'}")
files = {
    "undistorted_camera_parameters/17DRP5sb8fy.conf": "dataset matterport\nn_images 1\n"
    "intrinsics_matrix 1076.45 0 631.116  0 1077.19 509.202  0 0 1\n"
    f"scan 03a8_d0_0.png 03a8_i0_0.jpg {identity}\n",
    "matterport_camera_intrinsics/03a8_intrinsics_0.txt": "1280 1024 1076.45 1077.19 631.116 513.798 0 0 0 0 0",
    "matterport_camera_poses/03a8_pose_0_0.txt": "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",
}
for name, text in files.items():
    (house / name).parent.mkdir(exist_ok=True)
    (house / name).write_text(text)
data = scenezoo.get_dataset("matterport3d", ".", offline=True)
seen = {}
for source in ("undistorted", "raw"):
    frames = data.get_frames(house.name, source=source, items=("depth_intrinsics", "world_to_camera"))
    seen[source] = round(float(frames.depth_intrinsics[0, 1, 2]), 3)
    print(f"scenezoo {scenezoo.__version__}, {source}: cy {seen[source]} of 1024 rows, y down")
assert seen == {"undistorted": 509.202, "raw": 513.798}, "it changed"
PYTHON
