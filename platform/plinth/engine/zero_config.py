"""ZeRO and precision: our few fields on the left, DeepSpeed's dictionary on the right."""

from __future__ import annotations

from typing import Any

from plinth.engine.config import OptimConfig, Precision, ZeroConfig


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
        "zero_allow_untested_optimizer": True,  # plinth.engine.adamw: the parity tests are the test
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
