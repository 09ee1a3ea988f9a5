"""Streaming beyond this machine, on paper with measured costs: 8 to 1,024 GPUs, 1M to 1B views.

python -m benchmarks.scale --costs FILE [--path ray] [--views-per-s-per-gpu 500] [--markdown FILE]

FILE is what `python -m benchmarks.streaming --consumers 1 2 --json FILE` wrote: CPU seconds and bytes of a
view on this machine. Requests are those of a small data set, counted while it is read; the plan is measured
up to 1B views, the manifest at 20,000 shards, each in a process of its own (some minutes, 3 GB of memory).

Prints the arithmetic (`benchmarks.scale.model`) beside this machine for 1 and 2 consumers, and what follows.
What a GPU trains per second is an assumption that you give.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

from benchmarks.scale.counted import count_epoch
from benchmarks.scale.model import Costs, Layout, load, requests_of_epoch
from benchmarks.scale.plan import measured
from benchmarks.streaming import content, report
from benchmarks.streaming.ours import CORES
from plinth.data.config import DataConfig, ShardOptions
from plinth.data.shards import RowGroupReader
from plinth.data.sources import OpenSource, open_source
from plinth.storage import Storage, StorageOptions

GPUS = (8, 64, 256, 1024)
VIEWS = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
COUNTED_VIEWS = 4096
COUNTED_FOOTERS = 2
"""Kept while counting: few, so that the small data set behaves as a large one."""
MANIFEST_SHARDS = 20_000
GIB, MIB, GB = 2**30, 2**20, 10**9


@dataclass(frozen=True)
class Plan:
    """A plan as measured."""

    views: int
    numbers: dict[str, float]


def main() -> None:
    """Measure, compare, predict."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--costs", type=Path, required=True, help="JSON of benchmarks.streaming")
    parser.add_argument("--path", default="ray", choices=["ray", "threads"], help="reader; default: ray")
    parser.add_argument("--views-per-s-per-gpu", type=float, default=500.0, help="assumption; default: 500")
    parser.add_argument("--largest", type=int, default=VIEWS[-1], help="largest plan; default: 1B views")
    parser.add_argument("--markdown", type=Path, help="file that the tables are appended to")
    arguments = parser.parse_args()
    found = json.loads(arguments.costs.read_text())
    layout = default_layout()
    sections = [f"{report.machine()}. Reader: {arguments.path}."]
    with tempfile.TemporaryDirectory() as folder:
        depth = content.made_depth(content.DISTINCT_VIEWS)
        storage = Storage.from_uri(folder)
        _, frames = content.make_data_sets(storage, depth, COUNTED_VIEWS, ShardOptions().depth_codec)
        source = open_source(frames.storage.uri, StorageOptions())
        ranges, text = requests(source, layout)
    plans = [Plan(n, measured("plan", n // layout.row_group_views, layout.row_group_views))
             for n in VIEWS if n <= arguments.largest]  # fmt: skip
    manifest = measured("manifest", MANIFEST_SHARDS, layout.shard_views // layout.row_group_views)
    row = found[arguments.path]
    costs = Costs(
        cpu_s_per_view=row["cpu_s_per_1000"] / 1000,
        bytes_per_view=row["bytes_per_view"],
        footer_bytes=source.manifest.shards[0].footer_bytes,
        ranges_per_row_group=ranges,
        plan_s_per_row_group=plans[-1].numbers["first_s"] / (plans[-1].views / layout.row_group_views),
        plan_bytes_per_row_group=plans[-1].numbers["peak_bytes"] / (plans[-1].views / layout.row_group_views),
        manifest_bytes_per_shard=manifest["bytes"] / manifest["shards"],
        manifest_s_per_shard=manifest["load_s"] / manifest["shards"],
    )
    sections += [
        "#### Checked against this machine: rate\n\n" + rates(found, arguments.path),
        "#### Checked against this machine: requests of an epoch\n\n" + text,
        "#### The plan of large data sets, measured\n\n" + plan_table(plans),
        "#### Predicted\n\n" + assumptions(layout, costs, arguments.views_per_s_per_gpu)
        + predicted(layout, costs, arguments.views_per_s_per_gpu),
    ]  # fmt: skip
    page = "\n\n".join(sections) + "\n"
    print(page)
    if arguments.markdown:
        with open(arguments.markdown, "a") as file:
            file.write(page)


def default_layout() -> Layout:
    """As `plinth` has it by default, for row groups and shards as in `benchmarks.streaming`."""
    config = DataConfig()
    return Layout(
        row_group_views=content.ROW_GROUP_VIEWS,
        shard_views=content.SHARD_VIEWS,
        window_row_groups=config.window_row_groups,
        lanes_per_rank=1,
        prefetch_windows=config.prefetch_windows,
        ahead_bytes=config.ray_ahead_bytes,
        footers_kept=signature(RowGroupReader).parameters["max_footers"].default,
        windows_per_task=config.ray_windows_per_task,
    )


def rates(found: dict[str, report.Numbers], path: str) -> str:
    """What the CPU cost of one consumer allows, beside what 1 and 2 consumers reached."""
    possible = CORES / found[path]["cpu_s_per_1000"] * 1000
    lines = []
    for consumers in (1, 2):
        name = path if consumers == 1 else f"{path}, {consumers} consumers"
        if name in found:
            reached = found[name]["views_per_s"]
            lines.append((str(consumers), f"{possible:,.0f}", f"{reached:,.0f}", f"{reached / possible:.2f}"))
    header = ("consumers", f"views/s that {CORES} cores allow", "measured", "measured / predicted")
    return report.markdown(header, lines)


def requests(source: OpenSource, layout: Layout) -> tuple[float, str]:
    """Ranges of a row group as counted; and requests of an epoch, predicted and counted."""
    shards = source.manifest.shards
    row_groups = sum(len(shard.row_group_rows) for shard in shards)
    lines = []
    ranges = 0.0
    for ranks in (1, 2):
        for kept in (COUNTED_FOOTERS, layout.footers_kept):
            counted = count_epoch(source, ranks, kept)
            ranges = counted.ranges / counted.row_groups
            small = replace(layout, footers_kept=kept)
            expected = requests_of_epoch(counted.row_groups, len(shards), small, ranges, ranks)
            read = counted.bytes / source.manifest.rows
            lines.append(
                (
                    str(ranks), f"{kept}", f"{len(shards)}", f"{row_groups}", f"{counted.row_groups}",
                    f"{expected:.0f}", f"{counted.requests}", f"{read / 1024:.1f}",
                )
            )  # fmt: skip
    header = (
        "ranks", "footers kept", "shards", "row groups", "read (a row group may be in two lanes)",
        "requests predicted", "counted", "KiB read per view",
    )  # fmt: skip
    return ranges, report.markdown(header, lines)


def plan_table(plans: list[Plan]) -> str:
    """One line a size."""
    header = (
        "views", "row groups", "first window, CPU-s", "middle of that epoch", "middle of the next",
        "peak memory, one epoch", "two epochs",
    )  # fmt: skip
    return report.markdown(
        header,
        [
            (
                f"{plan.views:,}", f"{plan.views // content.ROW_GROUP_VIEWS:,}", f"{n['first_s']:.2f}",
                f"{n['deep_s']:.3f}", f"{n['deep_next_epoch_s']:.2f}",
                f"{n['peak_bytes_one_epoch'] / MIB:,.0f} MiB", f"{n['peak_bytes'] / MIB:,.0f} MiB",
            )
            for plan in plans
            for n in [plan.numbers]
        ],
    )  # fmt: skip


def assumptions(layout: Layout, costs: Costs, rate: float) -> str:
    """What went in, in words."""
    kib = costs.bytes_per_view / 1024, costs.footer_bytes / 1024
    cpu_s = costs.cpu_s_per_view * 1000
    return (
        f"A GPU trains {rate:,.0f} views/s (assumed). Measured here: {cpu_s:.3f} CPU-s per 1,000 views, "
        f"{kib[0]:.1f} KiB per view, {costs.ranges_per_row_group:.2f} requests per row group, footers of "
        f"{kib[1]:.1f} KiB, {costs.manifest_bytes_per_shard:.0f} bytes of manifest per shard.\n"
        f"Row groups of {layout.row_group_views} views, shards of {layout.shard_views}.\n\n"
    )


def predicted(layout: Layout, costs: Costs, rate: float) -> str:
    """One line a job."""
    header = (
        "GPUs", "views", "epoch", "requests/s", "of them footers", "GB/s", "CPU cores", "object store",
        "windows of a rank", "plan of a rank", "manifest",
    )  # fmt: skip
    lines = []
    for gpus in GPUS:
        for views in VIEWS:
            it = load(gpus, views, rate, layout, costs)
            lines.append(
                (
                    f"{gpus:,}", f"{views:,}", duration(it.epoch_s), f"{it.requests_per_s:,.0f}",
                    f"{it.footer_requests_per_s:,.0f}", f"{it.bytes_per_s / GB:.2f}", f"{it.cores:,.1f}",
                    f"{it.object_store_bytes / GIB:,.0f} GiB", f"{it.trainer_bytes / MIB:,.0f} MiB",
                    f"{it.plan_s:,.1f} s, {it.plan_bytes / MIB:,.0f} MiB",
                    f"{it.manifest_bytes / MIB:,.0f} MiB, {it.manifest_s:,.1f} s",
                )
            )  # fmt: skip
    return report.markdown(header, lines)


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
