"""What a stage reads: from the manifests where they can be reached, else from the schema and assumptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.ingest.config import ShapeConfig
from jobs.pretrain.config import PretrainJob, StageConfig
from plinth.data.config import ShardOptions
from plinth.data.sources import open_source
from plinth.errors import ConfigError, PlinthError
from plinth.schema import MISSING
from poma3d.sample import SampleShape, schema

DEPTH_COMPRESSION = 0.20
"""Stored bytes over raw bytes of depth: 19.9 of 98 KiB for a 224 x 224 view of a real scan, zstd 6."""
ASSUMED = ("samples", "views")

Assumptions = dict[tuple[str, str], int]
"""(stage, samples or views) -> number."""


@dataclass(frozen=True)
class DataFacts:
    """One stage's data."""

    shape: SampleShape
    samples: float | None
    """Per epoch: rows times the weights of their sources; None if unknown."""
    bytes_per_sample: float
    samples_per_request: float
    origin: str
    """Where the numbers come from, as text."""


def parse_assumptions(
    words: list[str], stages: Sequence[str], assumed: Sequence[str] = ASSUMED
) -> Assumptions:
    """`STAGE.samples=N` and `STAGE.views=N`.

    Args:
        stages: names that STAGE may have.
        assumed: what may be assumed of it.

    Raises:
        ConfigError: anything else.
    """
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        stage, _, name = key.partition(".")
        if stage not in stages or name not in assumed or not value.isdigit() or int(value) < 1:
            known = " or ".join(f"STAGE.{one}=N" for one in assumed)
            raise ConfigError(
                f"--assume {word}: expected {known} with a number above 0.",
                f"STAGE is {' or '.join(stages)}, such as {stages[-1]}.samples=6500.",
            )
        found[stage, name] = int(value)
    return found


def reason(error: PlinthError) -> str:
    """Why something could not be read, as a part of a sentence."""
    return error.problem.split("\n")[0].rstrip(".")


def data_facts(
    job: PretrainJob, name: str, stage: StageConfig, joint: int, assumed: Assumptions
) -> DataFacts:
    """The facts of a stage. Never raises for data that cannot be reached: it says what it assumes instead.

    Args:
        name: warmup or main.
        joint: width of the teacher's joint space.
    """
    try:
        return _from_manifests(job, stage, joint)
    except PlinthError as error:
        why = reason(error)
    sizes = ShapeConfig()
    views = assumed.get((name, "views"), 1 if name == "warmup" else sizes.views)
    shape = SampleShape(
        views, sizes.height, sizes.width, sizes.captions, sizes.scene_captions, embedding=joint
    )
    return DataFacts(
        shape=shape,
        samples=assumed.get((name, "samples")),
        bytes_per_sample=_stored_bytes(shape),
        samples_per_request=ShardOptions().row_group_rows,
        origin=f"assumed, from the schema ({why})",
    )


def _from_manifests(job: PretrainJob, stage: StageConfig, joint: int) -> DataFacts:
    sources = stage.data.sources
    if not sources or any(source.uri == MISSING for source in sources):
        raise ConfigError("no data source is named")
    found = [(open_source(source.uri, job.storage).manifest, source.weight) for source in sources]
    shards = [(shard, weight) for manifest, weight in found for shard in manifest.shards]
    rows = sum(shard.rows * weight for shard, weight in shards)
    groups = sum(len(shard.row_group_rows) * weight for shard, weight in shards)
    stored = sum(shard.size_bytes * weight for shard, weight in shards)
    sizes = found[0][0].attributes["shape"]
    shape = SampleShape(**{**sizes, "embedding": sizes["embedding"] or joint})
    return DataFacts(shape, rows, stored / rows, rows / groups, "from the manifests, all columns counted")


def _stored_bytes(shape: SampleShape) -> float:
    """Bytes of a row: depth compressed, embeddings as they are; training reads no captions and no colour."""
    total = 0.0
    for column in schema(shape):
        if column.metadata:
            total += column.type.byte_width * (DEPTH_COMPRESSION if column.name == "depth" else 1.0)
    return total
