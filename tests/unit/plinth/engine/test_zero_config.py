"""Our fields of ZeRO against DeepSpeed's dictionary."""

from __future__ import annotations

import pytest

from plinth.engine.config import OptimConfig, Precision, ZeroConfig
from plinth.engine.zero_config import deepspeed_config
from plinth.errors import ConfigError


def test_gradients_are_summed_and_sent_in_fp32_by_default() -> None:
    made = deepspeed_config(ZeroConfig(stage=3, precision=Precision.bf16), OptimConfig(grad_clip=2.0), 4, 3)
    assert made["bf16"]["enabled"]
    assert made["data_types"] == {"grad_accum_dtype": "fp32"}
    assert made["communication_data_type"] == "fp32"
    assert made["gradient_clipping"] == 2.0
    assert (made["train_micro_batch_size_per_gpu"], made["gradient_accumulation_steps"]) == (4, 3)
    assert made["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ZeroConfig(stage=4), "zero.stage is 4, expected 0, 1, 2 or 3"),
        (ZeroConfig(stage=0, precision=Precision.bf16), "zero.precision bf16 with zero.stage 0"),
        (
            ZeroConfig(accumulate_precision=Precision.bf16),
            "accumulate_precision or communicate_precision is bf16",
        ),
        (ZeroConfig(bucket_size=0), "zero.bucket_size is 0"),
    ],
)
def test_contradictions_are_refused(config: ZeroConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deepspeed_config(config, OptimConfig(), 1, 1)
