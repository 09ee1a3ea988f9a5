"""How many workers train, what each of them has, and what is evaluated beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

from plinth.counts import Count
from plinth.errors import ConfigError
from plinth.ray_labels import refuse_bad_label


@dataclass
class Workers:
    """How many training processes: a range, or a number for exactly that many."""

    min: int = 1
    """Fewest workers to train on; with fewer the run waits."""
    max: int = 1
    """Most workers; the run grows and shrinks with the cluster between the two. 0 trains in this process,
    without Ray."""

    @staticmethod
    def from_number(number: int) -> dict[str, int]:
        """What `workers: 4` in a job file stands for."""
        return {"min": number, "max": number}


@dataclass
class FitConfig:
    """Workers, and what each of them has."""

    workers: Workers = field(default_factory=Workers)
    """Training processes of Ray Train. The result does not depend on how many, nor on their coming and
    going."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for a worker; may be a fraction, so that reading tasks have room beside it."""
    gpus_per_worker: float = 0.0
    """GPUs that Ray reserves for a worker."""
    ray_label: str | None = None
    """The label of the nodes that train, as key=value, such as poma-role=train; any node when empty. With no
    such node in the cluster the run waits for one. A run that grows and shrinks takes all their resources for
    its own."""
    threads_per_worker: int = 1
    """Threads of torch's operators in a worker. More of them than cores make all workers slower."""
    deterministic_kernels: bool = True
    """On GPUs, take kernels that give the same bits every time where torch has them: others add with atomics,
    in any order."""
    max_failures: int = 3
    """How often lost workers, or a failed start of them, are started again, from the last checkpoint."""
    max_preemptions: int = 100
    """How often workers are started again that were taken away with a notice; counted for themselves."""
    preemption_grace_s: float = 10.0
    """How long workers on other machines may still save after a machine was to be taken away."""
    start_timeout_s: float = 120.0
    """How long a try waits until the cluster has room for the workers and they have started."""
    silent_after_s: float = 30.0
    """A worker that gives no sign of life for so long (its process is stopped, its machine hangs) is ended;
    the run goes on from the last checkpoint."""
    resize_check_s: float = 30.0
    """Seconds between two looks whether the cluster has room for more workers."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        least = {
            "gpus_per_worker": 0, "threads_per_worker": 1, "max_failures": 0, "max_preemptions": 0,
            "preemption_grace_s": 0,
        }  # fmt: skip
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected {value} or more.")
        for key in ("cpus_per_worker", "start_timeout_s", "silent_after_s", "resize_check_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"fit.{key} is {getattr(self, key)}, expected more than 0.")
        refuse_bad_label("fit.ray_label", self.ray_label)
        low, high = self.workers.min, self.workers.max
        if low < 0:
            raise ConfigError(f"fit.workers.min is {low}, expected 0 or more.")
        if low > high or (low == 0 < high):
            raise ConfigError(
                f"fit.workers is {low} to {high}.", "Give a range from 1 on, or 0 to train without Ray."
            )


@dataclass
class BesideConfig:
    """When checkpoints are evaluated beside the training, and what for."""

    every: Count = 1
    """Every how many checkpoints (`checkpoint.every_steps`) one is evaluated; the last of a stage always."""
    num_cpus: float = 1.0
    """CPUs that an evaluation claims. It waits until they are free, and the training does not wait for it:
    leave them free of workers, or all evaluations wait for the end of the run."""
    num_gpus: float = 0.0
    """GPUs that an evaluation claims; 0 evaluates on CPUs."""
    ray_label: str | None = None
    """The label of the nodes that evaluate, as key=value; any node when empty."""
    keep_waiting: Count = 4
    """Checkpoints that are kept until they are evaluated, whatever the checkpoint section says; older ones
    than these go unevaluated."""
    look_every_s: float = 10.0
    """Seconds between two looks for a new checkpoint and for room."""
    limit_s: float = 3600.0
    """An evaluation that takes longer is ended."""
    wait_s: float = 1800.0
    """How long the end of the run waits for evaluations that are left; the same command makes up for the
    rest."""
    yield_after_s: float = 15.0
    """Workers that are started again and do not come within this time may miss what an evaluation claims: it
    is ended, and done later."""

    def validate(self, section: str) -> None:
        """Refuse values out of range.

        Args:
            section: of the job that this is.

        Raises:
            ConfigError: naming the key.
        """
        for key in ("num_cpus", "look_every_s", "limit_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"{section}.{key} is {getattr(self, key)}, expected more than 0.")
        for key in ("num_gpus", "wait_s", "yield_after_s"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{section}.{key} is {getattr(self, key)}, expected 0 or more.")
        refuse_bad_label(f"{section}.ray_label", self.ray_label)
