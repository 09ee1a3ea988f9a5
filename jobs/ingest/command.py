"""`poma ingest`: scans or procedural rooms -> chosen views -> point-map shards -> manifest.

The unit of work is a shard: a fixed run of scenes, read, cut into samples and written by one task.
Shards carry a hash of their content in their names and the manifest is written last, so whatever dies,
the data set is there whole or not at all, and the same command again gives the same bytes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from statistics import median

from jobs.common.cluster import chosen_workers, map_tasks, ray_cluster
from jobs.common.datasets import (
    CLASSES_KEY,
    DISAGREEMENT_KEY,
    WARNINGS_KEY,
    Dataset,
    DisagreementRecord,
    add_statistics,
)
from jobs.common.objects import to_csv
from jobs.display.rejects import OF_FRAMES, REJECTS_FILE, example, last_line, remedy
from jobs.display.text import some
from jobs.ingest.build import ShardResult, ShardTask, make_shards
from jobs.ingest.built_from import refuse_changes, write_inputs
from jobs.ingest.config import IngestJob
from jobs.ingest.detect import detect
from jobs.ingest.readers import make_reader
from jobs.jobfile import asked
from plinth import config, plugins
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import refuse_incomplete
from plinth.digests import json_digest
from plinth.errors import ConfigError, DataError
from plinth.locations import absolute
from plinth.redaction import printable
from plinth.storage import Storage
from poma3d.sample import SCHEMA_VERSION, SampleShape
from poma3d.scenes.disagreement import Disagreement
from poma3d.scenes.frame import CAPTION_REASONS, NamesClasses, Reader, Reject

EXAMPLES = 3
"""Rejects that are named for each reason; all are in the table."""
SCANS_NAMED = 5
AGAIN = "overwrite=true builds it again"
PLACES = ("output", "storage")
"""Keys that say where a data set lies: a job gives the same one at any place, however that is written."""


def run(arguments: argparse.Namespace) -> int:
    """Build the data set and say what it holds, or say what could be built; returns the exit code.

    Raises:
        ConfigError: neither a job nor a folder to look at, or both.
    """
    if (arguments.job is None) == (arguments.detect is None):
        raise ConfigError(
            "Expected a job file, or --detect FOLDER.",
            "`poma ingest --detect FOLDER` says which layout lies there and writes the job file.",
        )
    if arguments.detect is None and (arguments.write or arguments.layout):
        raise ConfigError("--write and --layout go with --detect FOLDER.", "Leave them off.")
    if arguments.detect is not None:
        return detect(arguments.detect, arguments.layout, arguments.write)
    return run_job(asked(IngestJob, arguments), arguments.check_inputs)


def run_job(job: IngestJob, check_inputs: bool = False) -> int:
    """The same for a job that was read before."""
    for part in parts(job):
        start = time.monotonic()
        (dataset,) = _ingest([part], check_inputs)
        _say(dataset, time.monotonic() - start)
    return 0


def _say(dataset: Dataset, took_s: float) -> None:
    """What it holds, what was left out and what is doubtful."""
    stats = {"skipped_frames": "unknown", **dataset.manifest.attributes["statistics"]}
    size = sum(shard.size_bytes for shard in dataset.manifest.shards)
    print(
        f"{dataset.storage.uri}: {stats['samples']} samples, {stats['views']} views of {stats['frames']} "
        f"frames, {stats['rejected_frames']} frames rejected, {stats['skipped_frames']} not needed, "
        f"{len(dataset.manifest.shards)} shards, "
        f"{size / max(stats['views'], 1) / 1024:.1f} KiB per view, "
        f"{stats['frames'] / took_s:.1f} frames/s in {took_s:.0f} s"
    )
    for reason, count in sorted(stats["rejects"].items()):
        examples = ", ".join(dataset.manifest.attributes.get("reject_examples", {}).get(reason, []))
        such = f", such as {examples}" if examples else ""
        print(f"  rejected {count}: {printable(reason)}{printable(such)} (each in {REJECTS_FILE})")
    for line in dataset.disagreement.lines() if dataset.disagreement else []:
        print(f"  {line}")
    for line in dataset.doubts():
        print(f"  warning: {line}")
    if stats["rejects"]:
        print(last_line(Counter(stats["rejects"]), OF_FRAMES, REJECTS_FILE))


@dataclass(frozen=True)
class Part:
    """One of the data sets that a job builds."""

    job: IngestJob
    """With the output of this part."""
    is_held_out: bool = False

    def scene_ids(self, reader: Reader) -> list[str]:
        """The scans that belong to it."""
        found, every = reader.scene_ids(), self.job.held_out.every
        if every == 0:
            return found
        return [scene for i, scene in enumerate(found) if (i % every == every - 1) == self.is_held_out]


def parts(job: IngestJob) -> list[Part]:
    """The data set that is trained on, and the held-out one where the job asks for it.

    Raises:
        ConfigError: half of what it takes to hold out.
    """
    held_out = job.held_out
    if (held_out.every > 0) != (held_out.output is not None):
        raise ConfigError(
            f"held_out.every is {held_out.every} and held_out.output is {held_out.output}.",
            "Give both, such as held_out.every=5 held_out.output=held_out, or neither.",
        )
    if held_out.every == 1:
        raise ConfigError("held_out.every is 1, which leaves nothing to train on.", "Give 2 or more.")
    if held_out.output is None:
        return [Part(job)]
    return [Part(job), Part(replace(job, output=held_out.output), is_held_out=True)]


def ingest(jobs: Sequence[IngestJob], check_inputs: bool = False) -> list[Dataset]:
    """Build the data sets of jobs together; returns those that are trained on. See `run_job` for the
    arguments.

    Raises:
        ConfigError: there is another data set at an output, or its inputs have changed.
        DataError: nothing was left of an input, or a data set that is there is damaged.
    """
    of_jobs = [parts(job) for job in jobs]
    datasets = _ingest([part for of_job in of_jobs for part in of_job], check_inputs)
    firsts = accumulate(map(len, of_jobs[:-1]), initial=0)
    return [datasets[first] for first in firsts]


@dataclass(frozen=True)
class _Building:
    """A data set that is not there yet."""

    job: IngestJob
    output: Storage
    hash: str
    reader: Reader
    tasks: list[ShardTask]


def _ingest(of: Sequence[Part], check_inputs: bool) -> list[Dataset]:
    """Build data sets; what needs no cluster is checked before one starts. Shards of the same scenes, in
    several of them, are made in one task, which reads each scene once.

    Args:
        check_inputs: read every byte of the inputs: to record it, or to compare it with the record.
    """
    found = [_found_or_planned(part, check_inputs) for part in of]
    planned = [one for one in found if isinstance(one, _Building)]
    groups: dict[str, list[ShardTask]] = {}
    for task in (task for building in planned for task in building.tasks):
        groups.setdefault(json_digest([config.to_dict(task.job.reader), task.scene_ids]), []).append(task)
    made: dict[tuple[str, int], ShardResult] = {}
    if planned:
        first = planned[0].job
        workers = chosen_workers(first.workers, len(groups), first.ray, "shard")
        label = f"ingest {some([building.output.uri for building in planned], most=1)}"
        unit = "shards" if len(planned) == 1 else "tasks"
        with ray_cluster(first.ray, workers):
            results = map_tasks(make_shards, [*groups.values()], workers, {"CPU": 1.0}, label, unit)
        for tasks, of_tasks in zip(groups.values(), results, strict=True):
            made |= {(task.output.uri, task.index): one for task, one in zip(tasks, of_tasks, strict=True)}
    return [
        _commit(one, [made[one.output.uri, task.index] for task in one.tasks])
        if isinstance(one, _Building)
        else one
        for one in found
    ]


def _found_or_planned(part: Part, check_inputs: bool) -> Dataset | _Building:
    """The data set that is there, or what is to be built."""
    job = part.job
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    build = build_hash(part)
    reader = make_reader(job.reader)
    built = _built_before(job, output, (build, build_hash(part, PLACES)))
    if built is not None:
        try:
            unknown = refuse_changes(
                output, built.manifest.shards, reader, partial(part.scene_ids, reader), check_inputs
            )
            refuse_incomplete(output, built.manifest, f"Restore them; or {AGAIN}.")
        except (ConfigError, DataError):
            if not job.overwrite:
                raise
        else:
            print(f"{output.uri}: already built from this job" + (f"; {unknown}" if unknown else ""))
            return built
    return _Building(job, output, build, reader, _tasks(part, reader, output, check_inputs))


def _built_before(job: IngestJob, output: Storage, builds: Sequence[str]) -> Dataset | None:
    """The data set that this job built before; None where it is to be built.

    Args:
        builds: hashes of the job, as it is written now and by earlier versions.

    Raises:
        ConfigError: another job built one there.
        DataError: what lies there cannot be read.
    """
    if not output.exists(manifests.MANIFEST_KEY):
        return None
    try:
        dataset = Dataset(output, manifests.load(output))
    except DataError as error:
        if job.overwrite:
            return None
        raise DataError(error.problem, f"{error.fix.removesuffix('.')}; {AGAIN}.") from error
    if dataset.manifest.attributes.get("build") in builds:
        return dataset
    if job.overwrite:
        return None
    raise ConfigError(
        f"{output.uri} holds a data set that another job built.",
        "Give another output, or overwrite=true to replace it.",
    )


def _tasks(part: Part, reader: Reader, output: Storage, check_inputs: bool) -> list[ShardTask]:
    """The scenes of the source, cut into shards.

    Raises:
        ConfigError: no scene, or settings that contradict each other.
    """
    job = part.job
    shape = SampleShape(**asdict(job.shape), xyz=getattr(reader, "stores_points", False))
    if job.views.single_images and shape.views != 1:
        problem = f"shape.views is {shape.views}, but views.single_images makes samples of 1 view."
        raise ConfigError(problem, "Set shape.views=1.")
    if job.views.single_images and shape.xyz:
        problem = f"views.single_images needs the cameras, and {job.reader.kind} has none."
        raise ConfigError(problem, "Leave it off.")
    try:
        job.views.validate()
        scenes = part.scene_ids(reader)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if not scenes and part.is_held_out:
        problem = f"{job.reader.kind} found fewer than {job.held_out.every} scans, so none is held out."
        raise ConfigError(problem, "Lower held_out.every, or leave held_out off.")
    if not scenes:
        raise ConfigError(f"{job.reader.kind} found no scene.", "Check the folder that it reads.")
    size = job.scenes_per_shard
    groups = [scenes[start : start + size] for start in range(0, len(scenes), size)]
    job = absolute(job)
    return [ShardTask(job, output, shape, index, group, check_inputs) for index, group in enumerate(groups)]


def build_hash(part: Part, also: Sequence[str] = ()) -> str:
    """Hash of everything in a job that decides its data set.

    Args:
        also: keys that do not, and were in the hashes of earlier versions.
    """
    job = part.job
    left_out = {"ray", "workers", *PLACES} - {*also}
    deciding = {k: v for k, v in config.to_dict(job).items() if k not in left_out}
    deciding["overwrite"] = False  # how it came to be there does not change a data set
    every = deciding.pop("held_out")["every"]
    if every:
        deciding["held_out"] = {"every": every, "is_held_out": part.is_held_out}
    del deciding["reader"]["options"]
    del deciding["views"]["max_disagreement_mm"]  # decides what is said, not what is built
    deciding["reader"] |= plugins.identity(job.reader, "reader")
    return config.fingerprint(deciding)


def _disagreement(found: Sequence[tuple[str, Disagreement]], job: IngestJob) -> DisagreementRecord:
    """What was found about the scans, for the manifest; to a tenth of a millimetre, the same everywhere."""
    scans = {scene_id: round(one.median_mm, 1) for scene_id, one in found if one.median_mm is not None}
    not_measured: dict[str, list[str]] = {}
    for scene_id, one in found:
        if one.not_measured:
            not_measured.setdefault(one.not_measured, []).append(scene_id)
    of_set = round(median(scans.values()), 1) if scans else None
    return DisagreementRecord(of_set, job.views.max_disagreement_mm, scans, not_measured)


def _commit(building: _Building, results: Sequence[ShardResult]) -> Dataset:
    job, output, reader = building.job, building.output, building.reader
    classes = reader.classes() if isinstance(reader, NamesClasses) else None
    rejects = [reject for result in results for reject in result.rejects]
    output.write(REJECTS_FILE, to_csv(Reject, rejects))
    entries = [result.entry for result in results if result.entry is not None]
    if not entries:
        raise _nothing_left(output, rejects)
    totals = add_statistics([result.statistics for result in results])
    totals["frames"] = sum(result.frames for result in results)
    left_out = [reject for reject in rejects if reject.reason not in CAPTION_REASONS]
    # What is not needed: no candidates (views.candidate_step), or not among the views that see most.
    totals["rejected_frames"] = sum(bool(reject.frame_id) for reject in left_out)
    totals["skipped_frames"] = totals["frames"] - totals["views"] - totals["rejected_frames"]
    totals["rejects"] = dict(Counter(reject.reason for reject in rejects))
    examples: dict[str, list[str]] = {}
    for reject in rejects:
        examples.setdefault(reject.reason, []).append(f"{reject.scene_id} {reject.frame_id}".rstrip())
    warnings: dict[str, list[str]] = {}
    for text, scene_id in (warning for result in results for warning in result.warnings):
        warnings.setdefault(text, []).append(scene_id)
    inputs = {scene: kept for result in results for scene, kept in result.inputs.items()}
    write_inputs(output, entries, inputs)
    disagreement = _disagreement([one for result in results for one in result.disagreements], job)
    manifest = Manifest(
        entries,
        {
            "schema_version": SCHEMA_VERSION,
            "shape": building.tasks[0].shape.to_dict(),
            "source": job.reader.kind,
            "teacher": None,
            **({CLASSES_KEY: classes} if classes else {}),
            "statistics": totals,
            **({WARNINGS_KEY: warnings} if warnings else {}),
            DISAGREEMENT_KEY: asdict(disagreement),
            "reject_examples": {reason: places[:EXAMPLES] for reason, places in examples.items()},
            "build": building.hash,
            **({"reader": own} if (own := plugins.identity(job.reader, "reader")) else {}),
        },
    )
    manifests.commit(output, manifest)
    manifests.prune(output, manifest)
    return Dataset(output, manifest)


def _nothing_left(output: Storage, rejects: Sequence[Reject]) -> DataError:
    """The error of a build without a frame: the reasons, the most frequent of them in its own words."""
    rejects = [reject for reject in rejects if reject.reason not in CAPTION_REASONS]
    reasons = Counter(reject.reason for reject in rejects).most_common()
    scans = list(dict.fromkeys(printable(reject.scene_id) for reject in rejects))
    counts = "; ".join(f"{n} x {printable(reason)}" for reason, n in reasons)
    often = reasons[0][0]
    first = next(reject for reject in rejects if reject.reason == often)
    where = "/".join(part for part in (first.scene_id, first.frame_id) if part)
    return DataError(
        f"No valid frame in {some(scans, SCANS_NAMED)}: {counts}. "
        f"First {printable(often)}: {example(where, first.value)}.",
        f"To do about it: {remedy(often, OF_FRAMES)}. Each is a row of {output.uri}/{REJECTS_FILE}.",
    )
