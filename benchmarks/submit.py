"""From `poma submit` to the first step on a warm cluster.

    python -m benchmarks.submit [--repeat 3] [--folder bench-submit]

The cluster is up before: a head without room for workers and two nodes, separate raylets on this machine
behind a token. The job is tiny, so what is measured is the way there: the command itself with its check of
the job, packing, the job server, the driver, Ray Train's workers, DeepSpeed. Printed are seconds since the
command was given: until it says that the job is submitted, until the driver says where its job is, until
the first step has ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import yaml

from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from tests.helpers import raylets, tiny_jobs

POMA = str(Path(sys.executable).parent / "poma")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("bench-submit"), help="where data and runs go")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True)
    tiny_jobs.make_data(folder)
    with raylets.running(2, folder, {}) as cluster:
        for number in range(arguments.repeat):
            print(_measured(folder, f"run-{number}", cluster), flush=True)


def _measured(folder: Path, name: str, cluster: raylets.Raylets) -> str:
    job = tiny_jobs.pretrain_job(folder, warmup=None, name=name, fit={"workers": 2})
    path = tiny_jobs.write(folder / f"{name}.yaml", job)
    began = time.time()
    at: dict[str, float] = {}
    size = ""
    with subprocess.Popen(
        [POMA, "submit", path, "--address", cluster.dashboard, "--yes"],
        env=cluster.environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("submitted "):
                at["submitted"], size = time.time() - began, line.strip().rpartition(" with ")[2]
            elif "driver" not in at and line.startswith("job: "):
                at["driver"] = time.time() - began
    if process.returncode:
        raise SystemExit(f"the run failed:\n{''.join(lines)}")
    run = Storage.from_uri(yaml.safe_load(Path(path).read_text())["output"]).child(name)
    at["first step"] = read_lines(run.child("main"))[0]["time"] - began
    return f"{name}: " + ", ".join(f"{what} {seconds:.1f} s" for what, seconds in at.items()) + f" ({size})"


if __name__ == "__main__":
    main()
