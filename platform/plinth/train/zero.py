"""ZeRO and precision: our few fields on the left, DeepSpeed's dictionary on the right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from plinth.errors import ConfigError
from plinth.train.schedules import OptimConfig


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
    (see `plinth.train.exact_sums`). bf16 ignores it: its gradients have few enough bits."""
    bucket_size: int = 50_000_000
    """Elements of gradients or weights that travel in one message; also the size of the buffer for it."""
    overlap_communication: bool = False
    """Reduce gradients while the backward pass still runs (stages 1 to 3, CUDA): faster, more memory."""
    persistent_parameter_size: int = 100_000
    """Stage 3 keeps parameters up to this many elements whole on every rank instead of gathering them."""

    @property
    def adds_exactly(self) -> bool:
        """Whether gradients are put on a grid before they are added; see `exact_sums`."""
        return self.exact_sums and self.precision is Precision.fp32

    def validate(self) -> None:
        """Refuse an unknown stage and bf16 without shards.

        Raises:
            ConfigError: naming the key, its value and what to do.
        """
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


def deepspeed_config(
    zero: ZeroConfig, optim: OptimConfig, micro_batch_size: int, gradient_accumulation_steps: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`.

    The stage-3 keys are given at every stage: DeepSpeed ignores them below it.
    """
    zero.validate()
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "gradient_clipping": optim.grad_clip,
        "zero_allow_untested_optimizer": True,  # torch's AdamW: the parity tests are the test
        "zero_optimization": {
            "stage": zero.stage,
            "contiguous_gradients": True,
            "overlap_comm": zero.overlap_communication,
            "reduce_bucket_size": zero.bucket_size,
            "allgather_bucket_size": zero.bucket_size,
            "stage3_param_persistence_threshold": zero.persistent_parameter_size,
        },
        "bf16": {"enabled": zero.precision is Precision.bf16, "check_grad_overflow": True},
        "data_types": {"grad_accum_dtype": zero.accumulate_precision.value},
        "communication_data_type": zero.communicate_precision.value,
    }
