#!/usr/bin/env bash
# Pillow 13.0.0 stretches a 16-bit PGM whose maxval is not 65535: a depth map in millimetres with maxval 10000
# comes out 6.55 times too deep, without a warning. A PGM sample is a number of its own; maxval only says which
# number is white. What we do: the samples are read as they stand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import numpy
import PIL
from PIL import Image

samples = (1000, 2000)
seen = {}
for maxval in (65535, 10000, 4095):
    file = io.BytesIO(b"P5\n2 1\n%d\n" % maxval + struct.pack(">2H", *samples))
    seen[maxval] = numpy.asarray(Image.open(file)).ravel().tolist()
    print(f"Pillow {PIL.__version__}, maxval {maxval}: wrote {list(samples)}, read {seen[maxval]}")
assert seen == {65535: [1000, 2000], 10000: [6554, 13107], 4095: [16004, 32007]}, "it changed"
PYTHON
