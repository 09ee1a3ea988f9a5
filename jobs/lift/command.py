"""`poma lift`: sets of captioned images -> depth and camera -> point-map shards -> the next version.

    list the pieces of the inputs -> scan those that are new -> plan: parts without repeats
        -> read, lift, finish every part that has no commit -> version

Kill it at any time and run the same command: what is scanned, planned and committed is found by listing and
stays as it is (`jobs.lift.versions`). Images that come later are added by the same command with more inputs.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from jobs.common import models
from jobs.common.cluster import Progress, map_tasks, ray_cluster
from jobs.common.datasets import Dataset
from jobs.common.objects import digest, names_in
from jobs.display.rejects import OF_IMAGES, REJECTS_FILE, example, last_line, remedy
from jobs.jobfile import asked
from jobs.lift import lifters, versions
from jobs.lift.config import LiftJob
from jobs.lift.images.registry import open_set
from jobs.lift.images.sets import InputPiece
from jobs.lift.pipeline import lift_parts
from jobs.lift.scanned_inputs import refuse_changes
from jobs.lift.tasks import LiftWork, ScanTask, scan_piece
from jobs.lift.versions import DUPLICATE, Commit, Rejected, VersionPlan
from plinth import config
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import refuse_incomplete
from plinth.errors import ConfigError, DataError
from plinth.locations import absolute
from plinth.redaction import printable
from plinth.storage import Storage
from plinth.storage.lock import RunLock
from poma3d.sample import SCHEMA_VERSION, SampleShape

MAX_CHANGES_NAMED = 3


def run(arguments: argparse.Namespace) -> int:
    """Build the next version and say what it holds; returns the exit code."""
    return run_job(asked(LiftJob, arguments), arguments.check_inputs)


def run_job(job: LiftJob, check_inputs: bool = False) -> int:
    """The same for a job that was read before."""
    start = time.monotonic()
    dataset, added = lift(job, check_inputs)
    if not added:
        return 0
    attributes, took_s = dataset.manifest.attributes, time.monotonic() - start
    images = sum(commit.statistics["samples"] for commit in added)
    rejects = Counter(reject.reason for commit in added for reject in commit.rejects)
    seen = images + sum(rejects.values())
    size = sum(commit.shard["size_bytes"] for commit in added if commit.shard is not None)
    print(
        f"{dataset.storage.uri}: version {attributes['version']} with {attributes['statistics']['samples']} "
        f"samples, {images} of them new from {seen} images, {size / max(images, 1) / 1024:.1f} KiB each, "
        f"in {took_s:.0f} s"
    )
    folder = manifests.version_folder(attributes["version"])
    for reason, count in sorted(rejects.items()):
        print(f"  rejected {count}: {printable(reason)} (each in {folder}/{REJECTS_FILE})")
    print(f"  look at what was accepted and rejected: {folder}/{versions.CONTACT_SHEET_FILE}")
    if rejects:
        print(last_line(rejects, OF_IMAGES, f"{folder}/{REJECTS_FILE}"))
    return 0


def lift(job: LiftJob, check_inputs: bool = False) -> tuple[Dataset, list[Commit]]:
    """Build the next version; what needs no cluster is checked before one starts.

    Args:
        check_inputs: read every byte of the inputs: to record it, or to compare it with the record.

    Returns:
        The data set at its newest version, and what was added to it: nothing when it had all inputs.

    Raises:
        ConfigError: nothing to read, a data set of another recipe at the output, inputs of it that were
            edited, or another job that is adding to it.
        DataError: a piece that is not of its layout, a set without a usable image, or nothing left.
    """
    job.validate()
    job = absolute(job)
    if job.decode_side_px is None:
        wanted = max(lifters.decode_side_px(job.lifter), job.shape.height, job.shape.width)
        job = replace(job, decode_side_px=wanted)
    output = Storage.from_uri(job.output, job.storage)
    output.check(write=True)
    work, attributes = _work(job, output, check_inputs)
    with RunLock(output, job.lock):
        return _next_version(job, work, attributes)


def _next_version(job: LiftJob, work: LiftWork, attributes: dict[str, Any]) -> tuple[Dataset, list[Commit]]:
    output = work.output
    base = _base(output, attributes)
    if base is not None:
        refuse_incomplete(output, base, "Restore them, or give another output.")
    pieces = _pieces(job)
    known = set(base.attributes["pieces"]) if base else set()
    new = {identity: piece for identity, piece in pieces.items() if identity not in known}
    old = [piece for identity, piece in pieces.items() if identity in known]
    unknown = refuse_changes(output, old, work.check_inputs) if old else ""
    if base is not None and not new:
        said = f"; {unknown}" if unknown else ""
        print(f"{output.uri}: has all of the inputs at version {base.attributes['version']}{said}")
        return Dataset(output, base), []
    with ray_cluster(job.ray, job.workers):
        plan = _plan(job, work, base, new)
        commits = _lift_parts(work, plan, new)
    versions.write_rejects(output, commits)
    grown = {piece.config.uri for identity, piece in pieces.items() if identity in known}
    _refuse_empty_sets(output, plan, commits, new, grown)
    manifest = versions.commit_version(output, base, plan, commits, attributes)
    return Dataset(output, manifest), commits


def _work(job: LiftJob, output: Storage, check_inputs: bool) -> tuple[LiftWork, dict[str, Any]]:
    """What the tasks are told, and what the manifest says of the data set."""
    record = models.record(job.teacher, job.storage) if job.teacher else None
    shape = SampleShape(1, **asdict(job.shape), embedding=record.embedding if record else 0)
    recipe = job.recipe()
    recipe["lifter"]["revision"] = lifters.revision(job.lifter, job.storage)
    recipe["teacher"] = asdict(record) if record else None
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "shape": shape.to_dict(),
        "source": job.source,
        "teacher": recipe["teacher"],
        "recipe": recipe,
    }
    return LiftWork(job, output, digest(attributes), shape, check_inputs), attributes


def _base(output: Storage, attributes: dict[str, Any]) -> Manifest | None:
    """The version that is added to; None for the first.

    Raises:
        ConfigError: the data set there is not of this recipe, or not built by `poma lift`.
    """
    base = versions.latest(output)
    if base is None:
        if output.exists(manifests.MANIFEST_KEY):
            raise ConfigError(
                f"{output.uri} holds a data set that another command built.", "Give another output."
            )
        return None
    before = models.settle_revisions(base.attributes["recipe"], attributes["recipe"])
    changes = config.changed_keys(before, attributes["recipe"])
    if changes:
        named = [f"{key} was {old!r} and is {new!r}" for key, old, new in changes[:MAX_CHANGES_NAMED]]
        more = f" and {len(changes) - len(named)} more" if len(changes) > len(named) else ""
        raise ConfigError(
            f"{output.uri} was built with other settings: {'; '.join(named)}{more}.",
            "Give another output, or the same settings: all images of a data set are treated alike.",
        )
    return base


def _pieces(job: LiftJob) -> dict[str, InputPiece]:
    """Every piece of the inputs by its identity, in order, each once."""
    pieces: dict[str, InputPiece] = {}
    for images in job.inputs:
        for piece in open_set(images, job.storage).pieces():
            pieces.setdefault(piece.identity, piece)
    return pieces


def _plan(job: LiftJob, work: LiftWork, base: Manifest | None, new: dict[str, InputPiece]) -> VersionPlan:
    """What the next version adds: as planned before, else scan what is not indexed yet and plan."""
    output = work.output
    name = digest(work.recipe, base.hash if base else None, list(new))
    if output.exists(versions.plan_key(name)):
        return versions.load_plan(output, name)
    indexed = names_in(output, f"{versions.INDEX}/{work.recipe}")
    left = [ScanTask(work, piece) for identity, piece in new.items() if identity not in indexed]
    map_tasks(scan_piece, left, job.workers, {"CPU": 1.0}, f"scan for {output.uri}", "pieces")
    earlier = base.attributes["plans"] if base else []
    distance = job.gates.duplicate_distance
    return versions.make_plan(output, name, work.recipe, list(new), earlier, job.images_per_shard, distance)


def _lift_parts(work: LiftWork, plan: VersionPlan, pieces: dict[str, InputPiece]) -> list[Commit]:
    """Lift the parts that have no commit yet; what became of all of them."""
    done = names_in(work.output, versions.COMMITS)
    # What the task reads of a piece is in its index: a caption file's lines need not travel.
    left = [(replace(pieces[part.piece], lines=()), part) for part in plan.parts if part.name not in done]
    if len(left) < len(plan.parts):
        print(f"{work.output.uri}: {len(plan.parts) - len(left)} of {len(plan.parts)} parts are done already")
    progress = Progress(f"lift {work.output.uri}", "parts", len(left))
    for _ in lift_parts(work, left, work.job.workers):
        progress.advance()
    return versions.load_commits(work.output, plan.parts)


def _refuse_empty_sets(
    output: Storage,
    plan: VersionPlan,
    commits: Sequence[Commit],
    pieces: dict[str, InputPiece],
    grown: set[str],
) -> None:
    """Refuse new sets of which nothing could be used: something is wrong with them, or with the job.

    Args:
        pieces: those that are new, by identity.
        grown: URIs of sets that the data set has pieces of already: one bad file more stops nothing.

    Raises:
        DataError: naming the set, what was found in it, and one example.
    """
    of_set: dict[str, list[Commit]] = {piece.config.uri: [] for piece in pieces.values()}
    for part, commit in zip(plan.parts, commits, strict=True):
        of_set[pieces[part.piece].config.uri].append(commit)
    for uri in of_set.keys() - grown:
        made = of_set[uri]
        rejects = [reject for commit in made for reject in commit.rejects]
        unusable = [reject for reject in rejects if reject.reason != DUPLICATE]
        if len(unusable) == len(rejects) and not any(commit.shard for commit in made):
            raise _nothing_left(output, uri, rejects)


def _nothing_left(output: Storage, uri: str, rejects: Sequence[Rejected]) -> DataError:
    if not rejects:
        return DataError(f"{uri}: no usable image: it is empty.", "Check the set's folder and inputs.kind.")
    counts = Counter(reject.reason for reject in rejects).most_common()
    often = counts[0][0]
    first = next(reject for reject in rejects if reject.reason == often)
    reasons = ", ".join(f"{n} x {printable(reason)}" for reason, n in counts)
    return DataError(
        f"{uri}: no usable image: {reasons}; the first is {example(first.place, first.value)}.",
        f"To do about it: {remedy(often, OF_IMAGES)}. Each is a row of {output.uri}/{REJECTS_FILE}.",
    )
