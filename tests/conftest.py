"""Settings of the whole test session, made before torch and Ray are imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# The tests' models are tiny: a second thread costs more than it gives. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray notes the newest cluster of a machine in its temporary folder, and drivers that are told no address join
# that one: each of several test processes has a folder of its own. Short, for Ray's sockets lie in it.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    folder = Path(tempfile.gettempdir(), f"ray-{os.getppid()}-{worker}")
    folder.mkdir(exist_ok=True)
    os.environ["RAY_TMPDIR"] = str(folder)
