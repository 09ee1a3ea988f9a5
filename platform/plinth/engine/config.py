"""The settings of the optimizer, of ZeRO and of precision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from plinth.counts import Count, CountOrZero
from plinth.errors import ConfigError


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 1e-4
    """Peak learning rate, reached at the end of the warm-up; a parameter group's `lr_scale` multiplies it."""
    beta1: float = 0.9
    """Decay of the running mean of the gradient."""
    beta2: float = 0.98
    """Decay of the running mean of the squared gradient."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay; the stage decides which parameter groups have it."""
    warmup_steps: CountOrZero = 500
    """Steps of linear warm-up from 0; fewer than the steps of the stage."""
    min_lr_ratio: float = 0.1
    """Where the cosine ends, as a fraction of `lr`."""
    grad_clip: float = 5.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""

    def validate(self, total_steps: int | None = None) -> None:
        """Raise a ConfigError for a value out of range, or a warm-up longer than the stage."""
        ranges = {
            "lr": (self.lr > 0, "above 0"),
            "beta1": (0 <= self.beta1 < 1, "in [0, 1)"),
            "beta2": (0 <= self.beta2 < 1, "in [0, 1)"),
            "eps": (self.eps > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
            "min_lr_ratio": (0 <= self.min_lr_ratio <= 1, "in [0, 1]"),
            "grad_clip": (self.grad_clip >= 0, "0 or more"),
        }
        for key, (holds, allowed) in ranges.items():
            if not holds:
                raise ConfigError(f"optim.{key} is {getattr(self, key)}, expected {allowed}.")
        if total_steps is not None and self.warmup_steps >= total_steps:
            raise ConfigError(
                f"optim.warmup_steps {self.warmup_steps} is not less than the stage's {total_steps} steps.",
                "The learning rate would never reach optim.lr: lower the one or train longer.",
            )


class Precision(Enum):
    """A floating-point type. Members are named as they are written in a job file."""

    fp32 = "fp32"
    bf16 = "bf16"


@dataclass
class ZeroConfig:
    """What is sharded over the ranks, and in which precision the model computes."""

    stage: int = 2
    """0: nothing sharded; 1: optimizer states; 2: and gradients; 3: and weights."""
    precision: Precision = Precision.fp32
    """Type of weights and activations. fp32 masters, moments and EMA are kept in either case."""
    accumulate_precision: Precision = Precision.fp32
    """Type in which gradients of micro-batches are summed. In fp32, a bf16 run gives the same weights at
    any world size."""
    communicate_precision: Precision = Precision.fp32
    """Type in which gradients travel between ranks; fp32 for the same reason."""
    exact_sums: bool = True
    """Round the fp32 gradient of each micro-batch to a grid on which sums are exact, so that a run gives the
    same weights, bit by bit, at any number of workers; at stage 0 at powers of two, other sizes within 1e-6
    (see `plinth.engine.exact_sums`). bf16 ignores it: its gradients have few enough bits."""
    bucket_size: Count = 50_000_000
    """Elements of gradients or weights per message; also the size of its buffer."""
    overlap_communication: bool = False
    """Reduce gradients while the backward pass still runs (stages 1 to 3, CUDA): faster, more memory."""
    persistent_parameter_size: int = 100_000
    """Stage 3 keeps parameters up to this many elements whole on every rank instead of gathering them."""

    @property
    def adds_exactly(self) -> bool:
        """Whether gradients are put on a grid before they are added; see `exact_sums`."""
        return self.exact_sums and self.precision is Precision.fp32

    @property
    def identity(self) -> dict[str, str | bool]:
        """What of it decides a run's result, bit by bit. Stages 1 and 2 keep different things but add the
        same numbers in the same order; 0 and 3 do not."""
        return {
            "stage": "1 or 2" if self.stage in (1, 2) else str(self.stage),
            "precision": self.precision.value,
            "accumulate_precision": self.accumulate_precision.value,
            "communicate_precision": self.communicate_precision.value,
            "exact_sums": self.adds_exactly,
        }

    def validate(self) -> None:
        """Raise a ConfigError for an unknown stage, or precisions that do not go together."""
        if self.stage not in (0, 1, 2, 3):
            raise ConfigError(f"zero.stage is {self.stage}, expected 0, 1, 2 or 3.")
        if self.precision is Precision.bf16 and self.stage == 0:
            raise ConfigError(
                "zero.precision bf16 with zero.stage 0 keeps no fp32 masters.",
                "Use zero.stage 1, 2 or 3 with bf16, or zero.precision=fp32.",
            )
        if self.precision is Precision.fp32 and Precision.bf16 in (
            self.accumulate_precision,
            self.communicate_precision,
        ):
            raise ConfigError(
                "zero.precision is fp32, but accumulate_precision or communicate_precision is bf16.",
                "Set all three to bf16, or leave the gradients in fp32.",
            )
        if self.bucket_size < 1:
            raise ConfigError(f"zero.bucket_size is {self.bucket_size}, expected 1 or more elements.")
