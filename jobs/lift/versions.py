"""What `poma lift` keeps in storage, so that any part of it may die: everything is written once.

    MANIFEST.json                      the newest version: what training reads
    versions/000002/MANIFEST.json      a version: the shards of the one before and the new ones. Names of
                                       shards are relative to the data set, not to this folder
    versions/000002/rejects.csv        what this version left out, and why
    rejects.csv                        the same of the last build, also of one that left nothing
    versions/000002/gates.png          some of what it accepted beside some of what it left out
    shards/...                         the rows
    lift/index/<recipe>/<piece>.parquet  every image of a piece of the input: id, hash, where it is
    lift/inputs/<piece>.json           what the piece's files were then (`jobs.lift.scanned_inputs`)
    lift/plans/<plan>.json             what a version adds: runs of indexed images (parts) without the repeats
    lift/plans/<plan>.seen.parquet     ids and hashes of its images, for the versions after it
    lift/commits/<part>.json           a part that is done: its shard, and what it rejected

A part is named by a hash of everything that decides its content, so a commit is right for whoever finds it,
and what is unfinished is the parts of the plan that are missing from a listing.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.common.datasets import add_statistics
from jobs.common.objects import digest, read_many, read_table, to_csv, write_table
from jobs.display.rejects import REJECTS_FILE
from jobs.lift.contact_sheet import SHOWN, filter_sheet
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import RowGroupReader
from plinth.storage import Storage
from poma3d.lift.filters import find_duplicates

INDEX, PLANS, COMMITS = "lift/index", "lift/plans", "lift/commits"
CONTACT_SHEET_FILE = "gates.png"
DUPLICATE = "duplicate image"

INDEX_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("hash", pa.uint64()),
        ("place", pa.string()),
        ("locator", pa.string()),
        ("reason", pa.string()),  # null for an image that can be lifted
        ("value", pa.string()),
    ]
)
SEEN_SCHEMA = pa.schema([INDEX_SCHEMA.field("image_id"), INDEX_SCHEMA.field("hash")])


@dataclass(frozen=True)
class Part:
    """A run of a piece's indexed images, the unit that is lifted and committed."""

    piece: str
    """Identity of the piece."""
    start: int
    stop: int
    repeats: dict[str, str]
    """Row in the index (JSON keys are text) -> id of the earlier image that it repeats."""
    name: str
    """Hash of all that decides what the part becomes."""


@dataclass(frozen=True)
class VersionPlan:
    """What the next version adds."""

    name: str
    pieces: list[str]
    """Identities of the pieces that are new."""
    parts: list[Part]


@dataclass(frozen=True)
class Rejected:
    """An image that was left out."""

    image_id: str
    place: str
    reason: str
    value: str


@dataclass(frozen=True)
class Commit:
    """What became of a part; no shard when nothing was left of it."""

    shard: dict[str, Any] | None
    statistics: dict[str, Any]
    rejects: list[Rejected] = field(default_factory=list)
    shown: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason -> thumbnail (`jobs.lift.contact_sheet`) and value of one reject."""


def index_key(recipe: str, piece: str) -> str:
    """Where the index of a piece lies."""
    return f"{INDEX}/{recipe}/{piece}.parquet"


def plan_key(name: str) -> str:
    """Where a plan lies."""
    return f"{PLANS}/{name}.json"


def seen_key(name: str) -> str:
    """Where the ids and hashes of a plan's images lie."""
    return f"{PLANS}/{name}.seen.parquet"


def load_plan(storage: Storage, name: str) -> VersionPlan:
    """A plan that was written."""
    content = json.loads(storage.read(plan_key(name)))
    return VersionPlan(name, content["pieces"], [Part(**part) for part in content["parts"]])


def make_plan(
    storage: Storage,
    name: str,
    recipe: str,
    pieces: Sequence[str],
    earlier: Sequence[str],
    images_per_part: int,
    distance: int,
) -> VersionPlan:
    """Cut the indexed pieces into parts without what was there before, and write the plan.

    Args:
        pieces: the new ones, in their order, all indexed.
        earlier: plans of the versions before.
        images_per_part: images that are left of a part.
        distance: of `find_duplicates`.
    """
    columns = ("image_id", "hash", "reason")
    tables = [read_table(storage, index_key(recipe, piece), columns) for piece in pieces]
    usable = [table["reason"].is_null().to_numpy() for table in tables]
    seen = [read_table(storage, seen_key(plan)) for plan in earlier]
    fresh = [table.filter(mask).drop("reason") for table, mask in zip(tables, usable, strict=True)]
    everything = pa.concat_tables([SEEN_SCHEMA.empty_table(), *seen, *fresh])
    at = sum(len(table) for table in seen)
    write_table(storage, seen_key(name), everything.slice(at))
    ids, repeats = everything["image_id"], _repeats(everything, distance)
    parts: list[Part] = []
    for piece, mask in zip(pieces, usable, strict=True):
        earlier_row = np.full(len(mask), -1, np.int64)
        earlier_row[mask] = repeats[at : at + int(mask.sum())]
        at += int(mask.sum())
        for start, stop in _runs(mask & (earlier_row < 0), images_per_part):
            rows = np.flatnonzero(earlier_row[start:stop] >= 0) + start
            dropped = {str(row): ids[int(earlier_row[row])].as_py() for row in rows.tolist()}
            parts.append(Part(piece, start, stop, dropped, digest(recipe, piece, start, stop, dropped)))
    plan = VersionPlan(name, list(pieces), parts)
    storage.write(plan_key(name), json.dumps(asdict(plan)).encode())
    return plan


def _runs(left: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Runs of rows that hold at most `size` of those that are `left`; a run ends before one too many."""
    counted = np.cumsum(left)
    start = 0
    while start < len(left):
        before = counted[start - 1] if start else 0
        stop = int(np.searchsorted(counted, before + size, side="right"))
        yield start, stop
        start = stop


def _repeats(table: pa.Table, distance: int) -> np.ndarray:
    """int64 [n]: the earlier row with the same id, else with a near hash; -1 where there is none."""
    codes = table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    same = first[inverse]
    near = find_duplicates(table["hash"].to_numpy().astype(np.uint64), distance)
    return np.where(same < np.arange(len(codes)), same, near)


def write_commit(storage: Storage, part: str, commit: Commit) -> None:
    """The last thing that is written of a part."""
    storage.write(f"{COMMITS}/{part}.json", json.dumps(asdict(commit)).encode())


def load_commits(storage: Storage, parts: Sequence[Part]) -> list[Commit]:
    """What became of parts that are done, in order."""
    contents = map(json.loads, read_many(storage, [f"{COMMITS}/{part.name}.json" for part in parts]))
    return [
        Commit(
            c["shard"],
            c["statistics"],
            [Rejected(**reject) for reject in c["rejects"]],
            {reason: (picture, value) for reason, (picture, value) in c["shown"].items()},
        )
        for c in contents
    ]


def latest(storage: Storage) -> Manifest | None:
    """The newest version of a data set; None without any. Makes it the one that is read, where a kill came in
    between.

    Raises:
        DataError: a manifest that cannot be read.
    """
    numbers = manifests.versions(storage)
    if not numbers:
        return None
    newest = manifests.load_version(storage, numbers[-1])
    if not storage.exists(manifests.MANIFEST_KEY) or manifests.load(storage).hash != newest.hash:
        manifests.commit(storage, newest)
    return newest


def write_rejects(storage: Storage, commits: Sequence[Commit]) -> None:
    """The table of what a build left out: of a data set, or of one of its versions."""
    rejects = (reject for commit in commits for reject in commit.rejects)
    storage.write(REJECTS_FILE, to_csv(Rejected, rejects))


def commit_version(
    storage: Storage,
    base: Manifest | None,
    plan: VersionPlan,
    commits: Sequence[Commit],
    attributes: dict[str, Any],
) -> Manifest:
    """Write the next version: the shards of `base` and those of the commits.

    Args:
        attributes: of the data set, the same for all its versions.
    """
    nothing: dict[str, Any] = {"version": 0, "plans": [], "pieces": [], "statistics": {}}
    before = base.attributes if base else nothing
    number = before["version"] + 1
    rejects = [reject for commit in commits for reject in commit.rejects]
    counts: Counter[str] = Counter(before["statistics"].get("rejects", {}))
    counts.update(reject.reason for reject in rejects)
    parts = [commit.statistics for commit in commits]
    added = {k: v for k, v in before["statistics"].items() if not isinstance(v, dict)}
    totals = {
        **add_statistics([added, *parts]),
        "rejected_frames": sum(counts.values()),
        "rejects": dict(counts),
    }
    manifest = Manifest(
        [*(base.shards if base else []), *(ShardEntry(**c.shard) for c in commits if c.shard is not None)],
        {
            **attributes,
            "statistics": totals,
            "version": number,
            "previous": base.hash if base else None,
            "plans": [*before["plans"], plan.name],
            "pieces": [*before["pieces"], *plan.pieces],
        },
    )
    folder = storage.child(manifests.version_folder(number))
    write_rejects(folder, commits)
    folder.write(CONTACT_SHEET_FILE, _contact_sheet(storage, commits))
    manifests.commit(folder, manifest)
    manifests.commit(storage, manifest)
    return manifest


def _contact_sheet(storage: Storage, commits: Sequence[Commit]) -> bytes:
    """The first pictures of some new shards, and one reject of a reason from each of some commits."""
    shards = [ShardEntry(**c.shard) for c in commits if c.shard is not None][:SHOWN]
    accepted = []
    for shard in shards:
        rows = RowGroupReader(storage).read(shard, 0, ["colour"])["colour"].to_pylist()
        accepted += [colour[0] for colour in rows if colour][: -(-SHOWN // len(shards))]
    rejected: dict[str, list[tuple[str, str]]] = {}
    for commit in commits:
        for reason, shown in commit.shown.items():
            rejected.setdefault(reason, []).append(shown)
    return filter_sheet(accepted[:SHOWN], {reason: shown[:SHOWN] for reason, shown in rejected.items()})


def filter_examples(storage: Storage, version: int) -> tuple[bytes, list[dict[str, str]]] | None:
    """What a version accepted beside what it rejected, as a picture, and its table of rejects.

    Returns:
        None for a version that another command than `poma lift` wrote.
    """
    folder = storage.child(manifests.version_folder(version))
    if not folder.exists(CONTACT_SHEET_FILE):
        return None
    return folder.read(CONTACT_SHEET_FILE), list(
        csv.DictReader(io.StringIO(folder.read(REJECTS_FILE).decode()))
    )
