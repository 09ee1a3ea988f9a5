#!/usr/bin/env bash
# Ray 2.60.0 on Linux: `ray start --head --node-ip-address=127.0.0.1` does not keep the cluster on loopback. Ray takes
# the machine's address in place of it, and GCS and workers listen on all interfaces; a workstation with a public
# address offers them to everybody. The variable RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, whose name is about other
# systems, keeps all of it on loopback. What we do: the variable in clusters/local.yaml, and a token in any case.
set -euo pipefail
folder=$(mktemp -d /tmp/find.XXXX)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0 psutil==7.2.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).parent / "ray")
START = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0", "--include-dashboard=false"]


def listening(name: str, **variables: str) -> set[str]:
    """Addresses on which a head that is started so listens, 20 s later."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    head = subprocess.Popen(
        [*START, "--num-cpus=1", "--object-store-memory=80000000", f"--temp-dir={Path.cwd() / name}"],
        env=environment | token | variables, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    time.sleep(20)
    found = set()
    for process in (one := psutil.Process(head.pid), *one.children(recursive=True)):
        found |= {s.laddr.ip for s in process.net_connections("tcp") if s.status == psutil.CONN_LISTEN}
    os.killpg(head.pid, signal.SIGTERM)
    try:
        head.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
    return {address.removeprefix("::ffff:") for address in found}


alone = listening("a")
switched = listening("b", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
print(f"ray 2.60.0, --node-ip-address=127.0.0.1: listens on {sorted(alone)}; with the variable on {sorted(switched)}")
assert alone & {"0.0.0.0", "::"}, "it changed"
assert switched == {"127.0.0.1"}, "it changed"
PYTHON
