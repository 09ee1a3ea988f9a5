"""Settings of the whole test session, made before torch is imported."""

from __future__ import annotations

import os

# The tests' models are tiny: a second thread costs more than it gives. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
