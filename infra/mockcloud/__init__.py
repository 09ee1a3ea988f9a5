"""What a cluster file would ask AWS for, against a mock that knows the machines. Nothing is contacted."""

from __future__ import annotations

import json
import site
import subprocess
from pathlib import Path
from typing import Any

from infra.objectstore.install import ensure_installed

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venv-mockcloud"
TIMEOUT_S = 300.0
REASON_CHARACTERS = 2000


def launches(cluster: Path) -> dict[str, Any]:
    """Bootstrap a cluster file of AWS and start one node of each type; keys as in `infra.mockcloud.launch`.

    Raises:
        RuntimeError: Ray or the mock refused it; with the end of what they said.
    """
    binaries = ensure_installed(HERE / "requirements.txt", ENVIRONMENT)
    command = [str(binaries / "python"), str(HERE / "launch.py"), str(cluster), site.getsitepackages()[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{cluster.name}: {(done.stdout + done.stderr)[-REASON_CHARACTERS:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
