#!/usr/bin/env bash
# Ray 2.60.0, NCCL 2.29.7: Ray Train's detector of hangs in NCCL (RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR, off by default)
# asks the program `ncclras` which ranks of a collective are missing. The wheel of NCCL that torch depends on brings the
# library alone, so in an environment made by pip the detector finds no program: it says so once and watches nothing.
# NVIDIA's package libnccl-dev has the program; the detector needs that of 2.28 or later. What we do: the image for GPUs
# takes it from there, in the version of the wheel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --disable-pip-version-check --quiet)
"${pip[@]}" install 'ray[train]==2.60.0'
"${pip[@]}" download --no-deps --only-binary :all: --platform manylinux_2_18_x86_64 --dest "$folder" \
    nvidia-nccl-cu13==2.29.7
cd "$folder"
PATH="$folder/venv/bin:/usr/bin:/bin" "$folder/venv/bin/python" - <<'PYTHON'
import os
import shutil
import zipfile
from glob import glob

(wheel,) = glob("nvidia_nccl_cu13-*.whl")
files = zipfile.ZipFile(wheel).namelist()
programs = [name for name in files if "/bin/" in name or "ncclras" in name]
libraries = [name for name in files if name.endswith(".so.2")]
print(f"{wheel}: libraries {libraries}, programs {programs}")
assert libraries
assert not programs, "it changed: the wheel has programs"

import ray
from ray.train.v2._internal.callbacks.nccl_ras import run_ncclras

if shutil.which("ncclras"):
    raise SystemExit("this machine has ncclras from elsewhere; run it where there is none")
os.environ.pop("NCCL_RAS_ADDR", None)
answer = run_ncclras("ncclras", 5.0)
print(f"ray {ray.__version__}: the detector's query gives {answer}")
assert answer == {"ok": False, "reason": "binary_not_found"}, "it changed"
PYTHON
