"""Which build of each data set a run reads: a run reads the same ones from its first start to its end.

A source that names its version (`s3://bucket/images#3`) is pinned by the job. One that does not is pinned by
the run: the newest version at the run's first start is written down in the run's folder, and a resume reads
that one, whatever was added since. A run moves on when its job names another version and the command has
`--accept-changes`: the pass over the data that was under way is left, and the next one reads the new version
(`plinth.train.stage_run.first_cursor`). Data sets that `poma ingest` built keep no versions: nothing is
pinned, and a resume on other samples is refused as before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from jobs.common.run_layout import PINS_KEY
from plinth.data import manifest as manifests
from plinth.data.config import SourceConfig
from plinth.storage import Storage, StorageOptions
from plinth.train.stage_run import StageRun

Pins = dict[str, dict[str, int]]
"""Stage -> data set -> version."""


def read_pins(run: Storage) -> Pins:
    """What the run at `run` has read so far; nothing before its first start."""
    if not run.exists(PINS_KEY):
        return {}
    pins: Pins = json.loads(run.read(PINS_KEY))
    return pins


def write_pins(run: Storage, runs: Sequence[StageRun]) -> None:
    """Keep what the stages read, for every start of the run that comes."""
    pins: Pins = {stage.name: {} for stage in runs}
    for stage in runs:
        for source in stage.data.sources:
            uri, version = manifests.split_version(source.uri)
            if version is not None:
                pins[stage.name][uri] = version
    run.write(PINS_KEY, (json.dumps(pins, indent=1) + "\n").encode())


def pinned(
    sources: Sequence[SourceConfig], kept: dict[str, int], options: StorageOptions
) -> list[SourceConfig]:
    """The sources by absolute path or URI, each with its version, where it has any.

    Ray Train's workers run in another folder than this process, and start at other times.

    Args:
        kept: of `read_pins`, of the stage.

    Raises:
        DataError: one is no finished data set.
    """
    made = []
    for source in sources:
        folder, version = manifests.split_version(source.uri)
        storage = Storage.from_uri(folder, options)
        if version is None:
            newest = manifests.load(storage).attributes.get("version")
            version = kept.get(storage.uri, newest)
            if version != newest:
                print(
                    f"{storage.uri}: version {version}, as at the run's first start; to move to {newest}, "
                    f"name {manifests.with_version(storage.uri, newest)} and add --accept-changes"
                )
        made.append(replace(source, uri=manifests.with_version(storage.uri, version)))
    return made


def versions(sources: Sequence[SourceConfig]) -> list[int | None]:
    """The version of each source that is pinned."""
    return [manifests.split_version(source.uri)[1] for source in sources]
