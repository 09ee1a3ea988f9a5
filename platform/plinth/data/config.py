"""The settings of the data path: what is read, in which order, and what happens to data that is damaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from plinth.counts import Count, CountOrZero, too_small
from plinth.errors import ConfigError
from plinth.locations import Location
from plinth.ray_labels import refuse_bad_label
from plinth.schema import MISSING


class ReaderKind(Enum):
    """Who reads the windows. The order is the same."""

    auto = "auto"
    ray = "ray"
    threads = "threads"


class DecodePlace(Enum):
    """Where packed columns are decoded."""

    trainer = "trainer"
    """In the training worker, straight into the batch: few bytes travel."""
    task = "task"
    """reader ray: in the tasks that read, on any node: five times the bytes travel, decoded."""


class OnBadShard(Enum):
    """What happens to data that cannot be read as it was written."""

    stop = "stop"
    skip = "skip"


@dataclass
class SourceConfig:
    """One data set of the mixture."""

    uri: Location = MISSING
    """Folder of the data set: a path or s3://bucket/prefix; with #3 at its end, the third build of one whose
    builds are kept, else the newest."""
    weight: float = 1.0
    """Passes over it in an epoch; 0.5 takes half of it in one epoch and the other half in the next."""


@dataclass
class DataConfig:
    """What is read, in which order, and how far ahead."""

    sources: list[SourceConfig] = field(default_factory=list)
    """The data sets that are mixed. Their tensor columns and their teacher must agree."""
    lanes: Count = 16
    """Logical readers, a part of the data order: world_size must divide it and it must divide
    global_batch_size. Every lane keeps a window in memory."""
    window_row_groups: Count = 4
    """Row groups that a lane reads together and mixes: more mixes better and takes more memory."""
    reader: ReaderKind = ReaderKind.auto
    """ray: Ray Data tasks read, on any node. threads: threads of the training process do.
    auto: ray where the Ray cluster has more CPUs than the run has workers, or ray_label, ray_task_cpus or
    decode ask for its tasks; threads elsewhere. Where it depends on the cluster, the log says which."""
    prefetch_windows: Count = 4
    """Windows that a rank reads ahead of those in use, while the storage keeps up."""
    max_prefetch_windows: Count = 16
    """Windows that it reads ahead of an object store at most: one more each time the next one was not there
    yet. The requests that are under way at once grow with them."""
    prefetch_batches: Count = 2
    """Batches that a rank assembles ahead."""
    read_threads: Count = 2
    """reader threads: threads of a rank. reader ray: threads of a task. For an object store up to
    max_prefetch_windows / prefetch_windows times as many: in a task at once, in a rank as it has to wait."""
    ray_windows_per_task: Count = 8
    """reader ray: windows that one task reads. Fewer give a faster first batch, more a higher rate."""
    ray_tasks_per_segment: Count = 128
    """reader ray: tasks of one execution. The next one is prepared before it ends."""
    ray_concurrency: Count = 2
    """reader ray: tasks of a rank that run at once."""
    ray_task_cpus: float = 0.0
    """reader ray: CPUs that a task claims. 0 runs beside training workers that hold all CPUs; with more,
    leave that many free or reading never starts."""
    ray_label: str | None = None
    """reader ray: the label of the nodes that read, as key=value, such as poma-role=data; any node when
    empty. With no such node in the cluster reading waits for one."""
    ray_ahead_bytes: Count = 256 << 20
    """reader ray: bytes that a rank reads ahead into the object store, as they come from the tasks. Beside
    them lie there what ray_concurrency tasks are making and the windows in use; twice as much for a moment
    where one execution follows another."""
    decode: DecodePlace = DecodePlace.trainer
    """Where views are decoded: trainer, or (reader ray) task, where a node has more of it than cores."""
    decode_threads: Count = 2
    """Threads of a rank that decode views into its batches."""
    ray_progress: bool = False
    """reader ray: show Ray Data's progress bars and logs."""
    on_bad_shard: OnBadShard = OnBadShard.stop
    """What happens when a row group is missing, truncated or cannot be decoded, also when read again.
    stop: the run ends and names it. skip: its rows keep their places in the order, count in no loss and
    are listed in the run's records."""
    max_bad_row_groups: CountOrZero = 16
    """on_bad_shard skip: row groups that a rank may skip in a stage from one start to the next; one more
    ends the run."""


def validate(config: DataConfig) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: naming the field, the value and what was expected.
    """
    if not config.sources:
        raise ConfigError("data.sources is empty.", "Name at least one data set, as data.sources[0].uri.")
    for i, source in enumerate(config.sources):
        if not source.weight > 0:
            raise ConfigError(
                f"data.sources[{i}].weight is {source.weight}, expected more than 0.",
                "Leave a source out rather than giving it no weight.",
            )
    for key, value, least in too_small(config, "data."):
        raise ConfigError(f"{key} is {value}, expected {least} or more.")
    if config.max_prefetch_windows < config.prefetch_windows:
        raise ConfigError(
            f"data.max_prefetch_windows is {config.max_prefetch_windows}, "
            f"expected data.prefetch_windows ({config.prefetch_windows}) or more."
        )
    refuse_bad_label("data.ray_label", config.ray_label)
    if config.ray_task_cpus < 0:
        raise ConfigError(f"data.ray_task_cpus is {config.ray_task_cpus}, expected 0 or more.")


class Codec(Enum):
    """Of the frames of a packed column (`plinth.data.frames`)."""

    zstd = "zstd"
    """For stores and networks that bytes cost: a quarter fewer of them than lz4, decoded in three times the
    time."""
    lz4 = "lz4"
    """The default: two cores decode faster than they read whole columns
    (`python -m benchmarks.streaming.parts --codec lz4`)."""
    jxl = "jxl"
    """To archive: JPEG XL without loss, half the bytes of zstd, decoded in seven times the time. Only
    uint16 images; other packed columns are then zstd."""


CODEC_LEVELS = {Codec.zstd: (9, 1, 22), Codec.lz4: (9, 1, 12), Codec.jxl: (2, 1, 9)}
"""Codec -> level when none is given, lowest and highest. Higher ones save bytes and write slower."""


@dataclass(frozen=True)
class ShardOptions:
    """How rows become Parquet."""

    row_group_rows: Count = 64
    """Rows of a row group, the unit of reading: about 64 views of 224 x 224 (1.5 MB) is good, so 8 rows
    of 8 views."""
    zstd_level: int = 3
    """Level of zstd for the columns that Parquet compresses."""
    packed: list[str] = field(default_factory=lambda: ["depth", "xyz"])
    """Columns (glob patterns) of tensors that are stored as one compressed frame per view, which a training
    worker decodes straight into its batch."""
    depth_codec: Codec = Codec.lz4
    """Of the packed columns: lz4, zstd or jxl."""
    depth_level: int | None = None
    """Level of depth_codec: lz4 1 to 12 (9 when empty), zstd 1 to 22 (9), jxl effort 1 to 9 (2)."""
    uncompressed: list[str] = field(default_factory=lambda: ["*_embedding", "colour"])
    """Columns (glob patterns) that are stored as they are because they do not compress."""

    def validate(self) -> None:
        """Refuse values that Parquet would.

        Raises:
            ConfigError: naming the field.
        """
        for key, value, least in too_small(self, "shards."):
            raise ConfigError(f"{key} is {value}, expected {least} or more.")
        if not 1 <= self.zstd_level <= 22:
            raise ConfigError(f"shards.zstd_level is {self.zstd_level}, expected 1 to 22.")
        _, lowest, highest = CODEC_LEVELS[self.depth_codec]
        if self.depth_level is not None and not lowest <= self.depth_level <= highest:
            raise ConfigError(
                f"shards.depth_level is {self.depth_level}, expected {lowest} to {highest} for "
                f"depth_codec {self.depth_codec.value}."
            )
