"""Which build of each data set a run reads: a run reads the same ones from its first start to its end.

A source that names its version (`s3://bucket/images#3`) is pinned by the job. One that does not is pinned by
the run: the newest version at the run's first start is written down in the run's folder, and a resume reads
that one, whatever was added since. A run moves on when its job names another version and the command has
`--accept-changes`: the pass over the data that was under way is left, and the next one reads the new version
(`plinth.train.resolve.first_cursor`). Data sets that `poma ingest` built keep no versions: nothing is
pinned, and a resume on other samples is refused as before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from jobs.common.datasets import open_dataset
from jobs.common.run_layout import PINS_KEY
from plinth.data import manifest as manifests
from plinth.data.config import SourceConfig
from plinth.data.sources import OpenSource
from plinth.storage import Storage, StorageOptions
from plinth.storage.json_objects import damaged, read_json
from plinth.train.resolve import StageSpec
from poma3d.pretrained.config import TeacherRecord

Pins = dict[str, dict[str, int]]
"""Stage -> data set -> version."""
MEND = "Restore it; or name the versions in the job (uri#NUMBER) and delete it."


def read_pins(run: Storage) -> Pins:
    """What the run at `run` has read so far; nothing before its first start.

    Raises:
        DamagedObjectError: it cannot be read.
    """
    if not run.exists(PINS_KEY):
        return {}
    pins: Pins = read_json(run, PINS_KEY, MEND)
    if not all(isinstance(of_stage, dict) for of_stage in pins.values()):
        raise damaged(run, PINS_KEY, "expected {stage: {data set: version}}", MEND)
    return pins


def write_pins(run: Storage, stages: Sequence[StageSpec]) -> None:
    """Keep what the stages read, for every start of the run that comes."""
    pins: Pins = {stage.name: {} for stage in stages}
    for stage in stages:
        for source in stage.data.sources:
            uri, version = manifests.split_version(source.uri)
            if version is not None:
                pins[stage.name][uri] = version
    run.write(PINS_KEY, (json.dumps(pins, indent=1) + "\n").encode())


def open_pinned(
    sources: Sequence[SourceConfig],
    kept: dict[str, int],
    options: StorageOptions,
    teacher: TeacherRecord | None = None,
) -> list[OpenSource]:
    """The data sets, each at its version, where it has any. Each manifest is read once.

    Args:
        kept: of `read_pins`, of the stage.
        teacher: if given, the teacher that their embeddings must come from.

    Raises:
        DataError: one is no finished data set, or not for this program or teacher.
    """
    opened = []
    for source in sources:
        folder, version = manifests.split_version(source.uri)
        uri = Storage.from_uri(folder, options).uri
        if version is None and uri in kept:
            version = kept[uri]
            _say_if_newer(uri, version, options)
        dataset = open_dataset(manifests.with_version(uri, version), options, teacher)
        if version is None:
            version = dataset.manifest.attributes.get("version")
        opened.append(OpenSource(dataset.storage, dataset.manifest, source.weight, version))
    return opened


def at_versions(sources: Sequence[SourceConfig], opened: Sequence[OpenSource]) -> list[SourceConfig]:
    """The sources with the versions that were opened written into their URIs."""
    return [replace(source, uri=found.uri) for source, found in zip(sources, opened, strict=True)]


def _say_if_newer(uri: str, version: int, options: StorageOptions) -> None:
    newest = max(manifests.versions(Storage.from_uri(uri, options)), default=version)
    if newest != version:
        print(
            f"{uri}: version {version}, as at the run's first start; to move to {newest}, "
            f"name {manifests.with_version(uri, newest)} and add --accept-changes"
        )


def versions(sources: Sequence[SourceConfig]) -> list[int | None]:
    """The version of each source that is pinned."""
    return [manifests.split_version(source.uri)[1] for source in sources]
