#!/usr/bin/env bash
# Ray 2.60.0: a process that runs Ray Tune with AWS_SECRET_ACCESS_KEY in its environment, as whoever works on S3 has
# it, leaves the key in plain text in Ray's logs: Tune hands it to its trials in their runtime environment, which the
# agent of the node logs. And all actors that a trial starts inherit that environment, so none of them can be a process
# that Ray has ready. What we do: Tune hands on no keys; nodes have theirs from whoever runs them.
set -euo pipefail
folder=$(mktemp -d /tmp/find.XXXX)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "ray[tune]==2.60.0"
cd "$folder"
export AWS_ACCESS_KEY_ID=not-a-key AWS_SECRET_ACCESS_KEY=not-a-secret-either
"$folder/venv/bin/python" - <<'PYTHON'
import os
from pathlib import Path

import ray
from ray import tune

LOGS = Path.cwd() / "session"


def logs_with_the_key() -> list[str]:
    """Names of the files that hold it."""
    key = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    return sorted({path.name for path in LOGS.rglob("*") if path.is_file() and key in path.read_bytes()})


def trial(config: dict[str, int]) -> None:
    """Reports once."""
    tune.report({"loss": config["x"]})


ray.init(
    address="local", num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=str(LOGS),
    log_to_driver=False,
)
ray.get(ray.remote(num_cpus=0)(lambda: 1).remote())
before = logs_with_the_key()
tune.Tuner(
    trial,
    param_space={"x": tune.grid_search([1])},
    run_config=tune.RunConfig(storage_path=str(Path.cwd() / "results"), verbose=0),
).fit()
after = logs_with_the_key()
ray.shutdown()
print(f"ray 2.60.0: files with the key after a task: {before}; after a trial of Tune: {after}")
assert not before, "it changed"
assert any(name.startswith("runtime_env_agent") for name in after), "it changed"
PYTHON
