"""What storage and the stream do in the face of each fault, and how long it takes.

python -m benchmarks.faults [--stall 30] [--read-timeout 2]

A real S3 server on loopback behind the fault proxy of the tests, with the storage options that a job has
by default but for the read timeout. Each fault meets an operation once or twice and passes, then stays;
the result of the operation is compared with what it should be, and what was there before must still be.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from infra import objectstore
from plinth.data.batches import open_batches
from plinth.data.config import DataConfig, OnBadShard, ReaderKind
from plinth.data.plan import Cursor
from plinth.data.sources import OpenSource, mix
from plinth.errors import PlinthError
from plinth.storage import Storage, StorageOptions
from plinth.world import World
from tests.helpers import full_disk
from tests.helpers.datasets import COLUMNS, GLOBAL_BATCH, SEED, decode, make_data_set
from tests.helpers.fault_proxy import Fault, FaultProxy, Kind

ACCESS_KEY_ENV, SECRET_KEY_ENV = "BENCHMARK_ACCESS_KEY", "BENCHMARK_SECRET_KEY"
FILE_BYTES = 8 << 20
OLD = b"the checkpoint before"
DATA = DataConfig(lanes=4, window_row_groups=2, reader=ReaderKind.threads)
STEPS = 8  # two epochs of the toy data set
STALLS = (Kind.stall, Kind.stall_in_body)
CUTS = (Kind.truncated, Kind.shortened, Kind.stall_in_body)
PASSING_COUNT = 2
Operation = Callable[[], object]


def timed(operation: Operation) -> tuple[str, float]:
    """What the user sees, "done" or a line, and the seconds until then."""
    started = time.perf_counter()
    try:
        operation()
        outcome = "done"
    except PlinthError as error:
        outcome = str(error)
    return outcome, time.perf_counter() - started


def stream(source: OpenSource, config: DataConfig = DATA) -> tuple[list[str], list[str]]:
    """Ids of two epochs in order, and the rows that were skipped."""
    mixture = mix(config, [source], SEED, GLOBAL_BATCH)
    with open_batches(mixture, World(0, 1), Cursor(), COLUMNS, decode) as batches:
        taken = list(islice(batches, STEPS))
    return [i for b in taken for i in b.sample_ids], [text for b in taken for text in b.skipped]


def expect(is_right: bool) -> None:
    """A result that is another one would be worse than an error."""
    if not is_right:
        raise RuntimeError("an operation gave another result than without the fault")


def run_faults(proxy: FaultProxy, direct: Storage, storage: Storage, folder: Path, stall_s: float) -> None:
    """Print a row for each fault and operation: passing, then staying."""
    content = os.urandom(FILE_BYTES)
    (folder / "file").write_bytes(content)
    source = make_data_set(direct.child("data"))
    through = OpenSource(storage.child("data"), source.manifest)
    ids, _ = stream(source)

    def read() -> None:
        expect(stream(through) == (ids, []))

    def upload() -> None:
        storage.upload(folder / "file", "file")
        expect(direct.read("file") == content)

    for name, method, key, operation in (
        ("stream of shards", "GET", "*/shards/*", read),
        ("upload of 8 MiB", "PUT", "*/file", upload),
    ):
        row("none", name, *timed(operation))
        for kind in Kind:
            if kind in CUTS and method == "PUT":
                continue  # the answer has no body
            for count in (1 if kind in STALLS else PASSING_COUNT, None):
                direct.write("file", OLD)
                with proxy.injected(Fault(kind, method, key, count, seconds=stall_s)):
                    outcome, seconds = timed(operation)
                if outcome != "done":
                    expect(direct.read("file") in (OLD, content))
                times = "stays" if count is None else f"{len(proxy.met)} x"
                row(f"{kind.value} ({times})", name, outcome, seconds)


def run_damage(direct: Storage) -> None:
    """A byte that is another one in the store itself."""
    source = make_data_set(direct.child("damaged"))
    shard = source.manifest.shards[1]
    content = bytearray(source.storage.read(shard.name))
    content[len(content) // 3] ^= 0xFF
    source.storage.write(shard.name, bytes(content))
    row(
        "flipped byte in a stored shard, on_bad_shard=stop",
        "stream of shards",
        *timed(lambda: stream(source)),
    )
    skipping = replace(DATA, on_bad_shard=OnBadShard.skip)
    started = time.perf_counter()
    _, skipped = stream(source, skipping)
    told = f"done; {len(skipped)} rows of two epochs left out, the first: {skipped[0]}"
    row("the same, on_bad_shard=skip", "stream of shards", told, time.perf_counter() - started)


def row(fault: str, operation: str, outcome: str, seconds: float) -> None:
    """One line of the table."""
    print(f"| {fault} | {operation} | {outcome} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stall", type=float, default=30.0, help="seconds of a stall")
    parser.add_argument("--read-timeout", type=float, default=2.0, help="storage.read_timeout_s")
    arguments = parser.parse_args()
    print("| fault | operation | what it did | seconds |\n|---|---|---|---|")
    with objectstore.running() as store, FaultProxy(store.endpoint_url) as proxy:
        os.environ |= {ACCESS_KEY_ENV: store.access_key, SECRET_KEY_ENV: store.secret_key}
        options = StorageOptions(
            store.endpoint_url, store.region, access_key_env=ACCESS_KEY_ENV, secret_key_env=SECRET_KEY_ENV,
            read_timeout_s=arguments.read_timeout,
        )  # fmt: skip
        direct = Storage.from_uri(store.create_bucket("benchmark") + "/run", options)
        storage = Storage.from_uri(direct.uri, replace(options, endpoint_url=proxy.url))
        with tempfile.TemporaryDirectory() as folder:
            run_faults(proxy, direct, storage, Path(folder), arguments.stall)
        run_damage(direct)
    with tempfile.TemporaryDirectory() as folder:
        for operation, seconds, told in full_disk.run(Path(folder)) or []:
            row("full local disk", operation, told, float(seconds))


if __name__ == "__main__":
    main()
