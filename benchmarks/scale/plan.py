"""The plan and the manifest of data sets that are not there, each measured in a process of its own.

python -m benchmarks.scale.plan plan ROW_GROUPS ROWS       the order of ROW_GROUPS row groups
python -m benchmarks.scale.plan manifest SHARDS GROUPS     a manifest of SHARDS shards of GROUPS row groups

Prints one line of JSON. Memory is the peak of the resident set above what the process had after its imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.plan import Cursor, SourceRows, make_plan, rank_windows
from plinth.storage import Storage
from plinth.world import World

LANES, WINDOW_ROW_GROUPS, BATCH = 1024, 4, 8192
RANKS = 1024
COLUMNS = {f"column {i}": "fixed_size_binary[100352] depth uint16 [1, 224, 224]" for i in range(16)}
ROOT = Path(__file__).parents[2]


def measured(kind: str, *sizes: int) -> dict[str, float]:
    """`plan` or `manifest` of this module in a new process."""
    command = [sys.executable, "-m", "benchmarks.scale.plan", kind, *map(str, sizes)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def plan(row_groups: int, rows: int) -> dict[str, float]:
    """Time to the first window, to one in the middle of the same epoch, and of the next; bytes."""
    forget_peak()
    before = peak_bytes()
    sizes = np.full(row_groups, rows, np.int64)
    order = make_plan([SourceRows(sizes)], LANES, WINDOW_ROW_GROUPS, BATCH, seed=0)
    middle = order.steps_per_epoch // 2

    def window(cursor: Cursor) -> Callable[[], object]:
        return lambda: next(rank_windows(order, World(RANKS // 2, RANKS), cursor))

    first_s = seconds(window(Cursor(0, 0)))
    one_epoch = peak_bytes() - before
    deep_s = seconds(window(Cursor(0, middle)))
    next_s = seconds(window(Cursor(1, middle)))
    return {
        "first_s": first_s,
        "deep_s": deep_s,
        "deep_next_epoch_s": next_s,
        "peak_bytes_one_epoch": one_epoch,
        "peak_bytes": peak_bytes() - before,
    }


def manifest(shards: int, row_groups: int) -> dict[str, float]:
    """Bytes of the file, CPU seconds and memory to read it."""
    groups = [64] * row_groups
    entries = [
        ShardEntry(
            name=f"shards/part-{i:07d}-{i:016x}.parquet", rows=sum(groups), size_bytes=10_000_000 + i,
            sha256=f"{i:064x}", row_group_rows=list(groups), footer_bytes=20_000, footer_sha256=f"{i:064x}",
            codecs={"depth": "zstd"}, columns=COLUMNS,
        )
        for i in range(shards)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.from_uri(folder)
        manifests.commit(storage, Manifest(entries))
        del entries
        size = (Path(folder) / manifests.MANIFEST_KEY).stat().st_size
        load_s = seconds(lambda: manifests.load(storage))
    return {"bytes": size, "load_s": load_s, "shards": shards}


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def forget_peak() -> None:
    """Count the peak from now on: a process inherits its parent's through fork and exec."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The peak of the resident set since `forget_peak`."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    kinds = {"plan": plan, "manifest": manifest}
    print(json.dumps(kinds[sys.argv[1]](*map(int, sys.argv[2:]))))
