#!/usr/bin/env bash
# imagecodecs 2026.3.6: a higher level of lz4_encode gives MORE bytes. Without hc=True the number is LZ4's
# acceleration, not its compression level, so a depth map at level 12 is larger than at level 1, and twice what it
# could be. zstd_encode beside it takes the number as one would think. Whoever asks for the best level of LZ4 gets the
# worst. What we do: hc=True, where higher is smaller.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import imagecodecs
import numpy

# A plane seen by a disparity sensor: few distinct distances, and noise in their last step.
rows, columns = numpy.mgrid[0:224, 0:224] / 224
disparity = 43.5 / (2 + rows + columns / 2) + numpy.random.default_rng(0).normal(0, 0.03, rows.shape)
depth = (1000 * 43.5 / (numpy.round(disparity * 8) / 8)).astype(numpy.uint16).tobytes()
levels = (1, 4, 9, 12)
fast = [len(imagecodecs.lz4_encode(depth, level=level)) for level in levels]
high = [len(imagecodecs.lz4_encode(depth, level=level, hc=True)) for level in levels]
zstd = [len(imagecodecs.zstd_encode(depth, level=level)) for level in levels]
print(f"imagecodecs {imagecodecs.__version__}, levels {levels}: lz4 {fast}, lz4 hc {high}, zstd {zstd} bytes")
assert fast[-1] > fast[0], "the default mode changed"
assert fast[-1] > 2 * high[-1], "the default mode changed"
assert high == sorted(high, reverse=True), "hc changed"
assert zstd[-1] < zstd[0], "zstd changed"
PYTHON
