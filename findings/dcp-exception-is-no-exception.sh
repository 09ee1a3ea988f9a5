#!/usr/bin/env bash
# torch 2.13.0: what torch.distributed.checkpoint raises when a rank cannot write (a full or read-only disk) is a
# BaseException, not an Exception. `except Exception` around a checkpoint, meant to keep training alive, misses it,
# and the run ends. What we do: the error that it wraps is raised in its
# place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

warnings.simplefilter("ignore")
Path("taken").write_text("a file where the folder should be")
try:
    try:
        dcp.save({"weight": torch.zeros(2)}, checkpoint_id="taken/checkpoint")
    except Exception as error:
        raise SystemExit(f"it changed: {type(error)} is an Exception") from error
except SystemExit:
    raise
except BaseException as error:
    print(f"torch {torch.__version__}: {type(error).__name__} passed `except Exception`; bases {type(error).__bases__}")
    assert not isinstance(error, Exception)
else:
    raise SystemExit("it changed: nothing was raised")
PYTHON
