"""All rank arithmetic, in one class.

Legend: lane = one of a fixed number of logical readers; rank = a process; a rank owns
`lanes / world_size` consecutive lanes, so its rows of a global batch are consecutive too.
"""

from __future__ import annotations

from dataclasses import dataclass

from plinth.errors import ConfigError


@dataclass(frozen=True)
class World:
    """`rank` of `world_size` processes."""

    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not in a world of {self.world_size}")

    def lanes(self, num_lanes: int) -> range:
        """The lanes that this rank owns."""
        per_rank = self._share(num_lanes, "lanes")
        return range(self.rank * per_rank, (self.rank + 1) * per_rank)

    def rows(self, global_batch_size: int) -> range:
        """The rows of the global batch that this rank holds."""
        per_rank = self._share(global_batch_size, "rows of the global batch")
        return range(self.rank * per_rank, (self.rank + 1) * per_rank)

    def gradient_accumulation_steps(self, global_batch_size: int, micro_batch_size: int) -> int:
        """How many micro-batches this rank passes through the model in a step."""
        return self._share(global_batch_size // micro_batch_size, "micro-batches")

    def _share(self, total: int, what: str) -> int:
        """A rank's part. `check_divisibility` refuses such sizes before anything starts."""
        if total % self.world_size:
            raise ValueError(f"{total} {what} cannot be shared evenly by {self.world_size} ranks")
        return total // self.world_size


def possible_world_sizes(num_lanes: int, global_batch_size: int, micro_batch_size: int) -> list[int]:
    """Every world size at which each rank owns whole lanes and whole micro-batches, ascending."""
    micro_batches = global_batch_size // micro_batch_size
    return [n for n in range(1, num_lanes + 1) if num_lanes % n == 0 and micro_batches % n == 0]


def check_divisibility(
    world_size: int, num_lanes: int, global_batch_size: int, micro_batch_size: int
) -> None:
    """Refuse sizes that would change the order or the batch with the number of workers.

    Raises:
        ConfigError: naming the two numbers that disagree and the world sizes that are possible.
    """
    if global_batch_size % num_lanes:
        raise ConfigError(
            f"global_batch_size {global_batch_size} is not a multiple of lanes {num_lanes}.",
            "Every lane gives the same number of samples to each batch: change one of the two.",
        )
    if global_batch_size % micro_batch_size:
        raise ConfigError(
            f"global_batch_size {global_batch_size} is not a multiple of "
            f"micro_batch_size {micro_batch_size}.",
            "Change one of the two.",
        )
    sizes = possible_world_sizes(num_lanes, global_batch_size, micro_batch_size)
    if world_size > num_lanes:
        raise ConfigError(
            f"{world_size} workers are more than the {num_lanes} lanes of the data order.",
            f"Use one of {sizes} workers, or raise data.lanes (a new data order).",
        )
    if world_size not in sizes:
        raise ConfigError(
            f"{world_size} workers do not divide lanes {num_lanes} and "
            f"{global_batch_size // micro_batch_size} micro-batches of {micro_batch_size}.",
            f"Use one of {sizes} workers.",
        )
