"""Streaming alone: views per second of both readers beside what one would use instead, on the same views.

python -m benchmarks.streaming [--scan FOLDER] [--views 8192] [--rounds 5] [--codec lz4] [--s3] [--json FILE]
                               [--consumers 1 2] [--cold 2] [--cut] [--peers FOLDER] [--markdown FILE]

    bare pyarrow      whole columns, row group by row group in 2 threads, thrown away: no order, no batches
    threads, ray      ours: batches in the order of the plan, from frames
    DataLoader        torch's, 2 worker processes that each read every second row group of the whole columns
                      and hand over ready batches, in no order; local files only
    plain Ray Data    read_parquet of the whole columns and iter_batches (2 consumers: streaming_split), in no
                      order
    StreamingDataset, LitData, WebDataset    with --peers: shuffled, each in its own format, with a DataLoader
                      of 2 worker processes; from S3 only WebDataset (`peers.setup` says why)

Depth at 224 x 224 with camera and embeddings, one view per sample, row groups of 64 views; made here
(planes and bumps with the noise of a disparity sensor) or from the depth images of a scan, repeated.
Every consumer is a process of its own (with Ray an actor) that has imported what it needs; 2 consumers take
half each, and share the threads. Rounds are interleaved and the medians shown, because the machine may be
busy; CPU seconds are those of all processes, and count more than the clock where other work runs beside.

Ratios are to bare pyarrow on whole columns (data set format 1) in the same setting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import ray

from benchmarks.streaming import content, measure, report
from benchmarks.streaming.actors import Actors
from benchmarks.streaming.content import DataSet
from benchmarks.streaming.cut import cuts
from benchmarks.streaming.measure import ReadPath
from benchmarks.streaming.ours import BATCH, CORES, threads_each
from benchmarks.streaming.peers import setup
from benchmarks.streaming.peers.setup import Peers
from benchmarks.streaming.workers import Group
from plinth.data.config import Codec, ShardOptions

BASE = "bare pyarrow"
OURS = ("threads", "ray")
WITH_RAY = ("ray", "plain Ray Data")
OBJECT_STORE_BYTES = 2 << 30


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--scan", type=Path, help="folder of a scan whose depth is used")
    parser.add_argument("--views", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5, help="of warm epochs")
    parser.add_argument(
        "--codec", choices=[codec.value for codec in Codec], default=ShardOptions().depth_codec.value
    )
    parser.add_argument("--s3", action="store_true", help="read from a local S3 server over HTTP")
    parser.add_argument("--consumers", type=int, nargs="+", default=[1], choices=[1, 2], help="default: 1")
    parser.add_argument("--cold", type=int, default=0, metavar="ROUNDS", help="measure cold epochs, too")
    parser.add_argument("--cut", action="store_true", help="cut an epoch and resume at another size, too")
    parser.add_argument("--peers", type=lambda name: Path(name).absolute(), metavar="FOLDER", 
                        help="compare with other libraries, installed into FOLDER once (2 GB)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file that gets {name: {views_per_s, ratio, ...}}")
    parser.add_argument("--markdown", type=Path, help="file that the tables are appended to")
    return parser.parse_args()


def our_path(name: str, made: DataSet) -> ReadPath:
    """A path of `benchmarks.streaming.ours`."""
    storage = made.storage
    config = {"path": name, "uri": storage.uri, "options": vars(storage.options)}
    command = [sys.executable, "-m", "benchmarks.streaming.ours"]
    start = partial(Actors, config) if name in WITH_RAY else partial(Group, command, config)

    def drop() -> None:
        if storage.is_local:
            measure.drop_pages(Path(storage.root))

    return ReadPath(start, made.bytes_per_view, list, drop)


def peer_path(name: str, peers: Peers) -> ReadPath:
    """A path of `benchmarks.streaming.peers.consumers`."""
    config = peers.config(name)

    def start(count: int) -> Group:
        sizes = {"batch": BATCH // count, "threads": threads_each(count)}
        return Group(peers.command(), {**config, **sizes}, count)

    def drop() -> None:
        for path in peers.caches(name):
            path.unlink()
        if peers.storage.is_local:
            measure.drop_pages(Path(peers.storage.root))

    return ReadPath(start, peers.bytes_per_view(name), partial(peers.caches, name), drop)


def main() -> None:
    """Make the data sets, read them in turns, print the tables."""
    arguments = parse()
    depth = (
        content.scan_depth(arguments.scan) if arguments.scan else content.made_depth(content.DISTINCT_VIEWS)
    )
    if arguments.peers:
        arguments.peers.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.peers)))
        storage = stack.enter_context(content.place(arguments.s3, folder))
        whole, frames = content.make_data_sets(storage, depth, arguments.views, Codec(arguments.codec))
        ray.init(
            address="local",
            num_cpus=CORES,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level="warning",
            log_to_driver=False,
        )
        stack.callback(ray.shutdown)
        paths = {name: our_path(name, frames if name in OURS else whole) for name in (BASE, *OURS)}
        if not arguments.s3:
            paths["DataLoader"] = our_path("DataLoader", whole)
        paths["plain Ray Data"] = our_path("plain Ray Data", whole)
        if arguments.peers:
            columns = folder / "columns"
            columns.mkdir()
            content.write_columns(columns, depth, arguments.views)
            python = setup.environment(arguments.peers)
            peers = setup.convert(python, columns, storage.child("peers"), folder, arguments.views)
            names = setup.OVER_HTTP if arguments.s3 else tuple(setup.FORMATS)
            paths |= {name: peer_path(name, peers) for name in names}
        found, text = run(arguments, paths)
        if arguments.cut:
            resumable = {n: p for n, p in paths.items() if n in OURS or n in setup.FORMATS}
            ids = content.sample_ids(frames.storage)
            text += heading("Cut at a third of an epoch", report.cut_table(cuts(resumable, ids, BATCH)))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.markdown:
        title = (
            f"## {'S3 over HTTP on loopback' if arguments.s3 else 'Local disk'}, {arguments.views:,} views"
        )
        with open(arguments.markdown, "a") as file:
            print(f"{title}\n\n{report.machine()}.\n\n{text}", file=file)


def run(arguments: argparse.Namespace, paths: dict[str, ReadPath]) -> tuple[dict[str, report.Numbers], str]:
    """All settings; the numbers by name, and the tables."""
    found: dict[str, report.Numbers] = {}
    text = ""
    sizes = {name: path.bytes_per_view for name, path in paths.items()}
    for consumers in arguments.consumers:
        for is_cold in (False, True) if arguments.cold else (False,):
            take_turns, rounds = (
                (measure.cold, arguments.cold) if is_cold else (measure.warm, arguments.rounds)
            )
            rows = take_turns(paths, arguments.views, consumers, rounds)
            cached = {name: sum(p.stat().st_size for p in path.caches()) for name, path in paths.items()}
            per_view = {name: size / arguments.views for name, size in cached.items()}
            of_setting = report.numbers(rows, BASE, sizes, per_view)
            title = f"{'Cold' if is_cold else 'Warm'}, {consumers} consumer{'s' * (consumers > 1)}"
            text += heading(f"{title}, {rounds} rounds", report.table(of_setting))
            suffix = (", cold" if is_cold else "") + (f", {consumers} consumers" if consumers > 1 else "")
            found |= {name + suffix: row for name, row in of_setting.items()}
    return found, text


def heading(title: str, table: str) -> str:
    """Print a table, and return it for the page."""
    section = f"### {title}\n\n{table}\n\n"
    print(section, flush=True)
    return section


if __name__ == "__main__":
    main()
