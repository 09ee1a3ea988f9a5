"""`poma shards inspect|verify|preview|convert`: looking into a data set, without Ray."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.common.datasets import Dataset, open_dataset
from jobs.common.flags import storage_options
from plinth.data import manifest as manifests
from plinth.data.config import Codec, ShardOptions
from plinth.errors import EXIT_CODE
from plinth.storage import Storage


def run(arguments: argparse.Namespace) -> int:
    """Dispatch one of the four actions; returns the exit code."""
    if arguments.action == "convert":
        return write_converted(arguments)
    dataset = open_dataset(arguments.uri, storage_options(arguments))
    if arguments.action == "inspect":
        return inspect(dataset)
    if arguments.action == "verify":
        return check(dataset)
    return show(dataset, arguments.out, arguments.samples)


def write_converted(arguments: argparse.Namespace) -> int:
    """Convert a data set and say what became of it."""
    from jobs.shards.convert import convert

    old, new = (Storage.from_uri(uri, storage_options(arguments)) for uri in (arguments.old, arguments.new))
    options = ShardOptions(depth_codec=Codec(arguments.codec), depth_level=arguments.level)
    made = convert(old, new, options)
    size = sum(shard.size_bytes for shard in made.shards)
    print(f"{new.uri}: {made.rows} samples in {len(made.shards)} shards, {size / 2**20:.1f} MiB, {made.hash}")
    return 0


def show(dataset: Dataset, out: Path, samples: int) -> int:
    """Write the contact sheet; of what `poma lift` built, with what was accepted beside what was rejected."""
    from jobs.lift.contact_sheet import below, table_lines
    from jobs.lift.versions import filter_examples
    from jobs.shards.preview import PreviewConfig, preview

    shown = dataset.samples(samples)
    remarks = [dataset.remarks(sample.scene_id) for sample in shown]
    preview(shown, out, PreviewConfig(scenes=samples), remarks)
    for line in dataset.disagreement.lines() if dataset.disagreement else []:
        print(line)
    manifest = dataset.manifest
    version = manifest.attributes.get("version")
    if version and (found := filter_examples(dataset.storage, version)):
        pictures, rejects = found
        before = manifests.load_version(dataset.storage, version - 1).rows if version > 1 else 0
        lines = table_lines(rejects, manifest.rows - before)
        out.write_bytes(below(out.read_bytes(), pictures, [f"version {version}", *lines]))
        print(f"version {version}: {lines[0]}")
    print(out)
    return 0


def inspect(dataset: Dataset) -> int:
    """Print what the manifest says."""
    manifest, shape, stats = dataset.manifest, dataset.shape, dataset.manifest.attributes["statistics"]
    size = sum(shard.size_bytes for shard in manifest.shards)
    valid = stats["valid_depth_pixels"] / max(stats["depth_pixels"], 1)
    print(f"{dataset.storage.uri}")
    print(f"  source      {manifest.attributes['source']}")
    if version := manifest.attributes.get("version"):
        there = ", ".join(map(str, manifests.versions(dataset.storage)))
        print(f"  version     {version} of {there} (rejects and pictures of each: versions/)")
    print(f"  samples     {stats['samples']} of {stats['scenes']} scenes, {shape.views} views each")
    print(f"  views       {stats['views']} and {stats['padded_views']} repeats that fill short scenes")
    print(f"  point maps  {shape.height} x {shape.width}, {valid:.1%} of the pixels have depth")
    print(f"  captions    {stats['view_captions']} of views, {stats['scene_captions']} of scenes")
    missing = "none: give one to `poma lift`" if version else "none yet: run `poma embed`"
    print(f"  teacher     {dataset.teacher or missing}")
    print(f"  rejected    {stats['rejected_frames']} frames {stats['rejects'] or ''}".rstrip())
    for line in dataset.disagreement.lines() if dataset.disagreement else []:
        print(f"  agreement   {line}")
    for line in dataset.doubts():
        print(f"  warning     {line}")
    groups = sum(len(shard.row_group_rows) for shard in manifest.shards)
    print(f"  shards      {len(manifest.shards)} with {groups} row groups, {size / 2**20:.1f} MiB")
    print(f"  bytes       {size / max(stats['views'], 1) / 1024:.1f} KiB a view, colour included")
    codecs = sorted({f"{column} {codec}" for s in manifest.shards for column, codec in s.codecs.items()})
    print(f"  frames      {', '.join(codecs) or 'none: columns are compressed whole'}")
    print(f"  hash        {manifest.hash}")
    return 0


def check(dataset: Dataset) -> int:
    """Compare every shard with the manifest, and look at every sample; exit code 2 when anything is wrong."""
    from jobs.shards.verify import problems

    found = list(problems(dataset))
    for _, text in found:
        print(text)
    total, damaged = len(dataset.manifest.shards), len({shard for shard, _ in found if shard})
    print(f"{dataset.storage.uri}: {total - damaged} of {total} shards are whole")
    return EXIT_CODE if found else 0
