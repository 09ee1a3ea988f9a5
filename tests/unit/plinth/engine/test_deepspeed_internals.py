"""Every name that is borrowed from DeepSpeed's insides is still there; an upgrade fails here, by the name."""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import plinth
from plinth.engine import process
from tests.helpers.ranks import RankPool, run_ranks
from tests.helpers.runs import Case, global_batches, toy_engine

BF16_STAGE_1 = Case(1, precision="bf16")
CASES = {"stage 1": Case(1), "stage 1 bf16": BF16_STAGE_1, "stage 2": Case(2), "stage 3": Case(3)}
STAGES_1_AND_2 = ("stage 1", "stage 1 bf16", "stage 2")
OPTIMIZER = {
    "get_grad_norm_direct": tuple(c for c in CASES if c != "stage 1 bf16"),
    "optimizer": tuple(CASES),
    "single_partition_of_fp32_groups": ("stage 1", "stage 2"),
    "fp32_groups_flat_partition": ("stage 1 bf16",),
    "fp32_partitioned_groups_flat": ("stage 3",),
    "averaged_gradients": ("stage 1", "stage 2", "stage 3"),
    "bit16_groups": ("stage 1", "stage 2"),
    "bit16_groups_flat": ("stage 1", "stage 2"),
    "partition_size": ("stage 1", "stage 2"),
    "check_grad_overflow": ("stage 1", "stage 2"),
    "_grad_acc_hooks": ("stage 1", "stage 2"),
    "_update_model_bit16_weights": ("stage 1", "stage 2"),
    "_get_preflattened_grad_partition": ("stage 1", "stage 2"),
    "grad_position": ("stage 3",),
    "get_param_id": ("stage 3",),
    "update_lp_params": STAGES_1_AND_2,
    "checkpoint_event_prologue": ("stage 3",),
    "checkpoint_event_epilogue": ("stage 3",),
}
PARAMETER = {
    "_hp_mapping": STAGES_1_AND_2,
    "ds_shape": ("stage 3",),
    "ds_numel": ("stage 3",),
    "ds_tensor": ("stage 3",),
    "ds_persist": ("stage 3",),
    "partition": ("stage 3",),
    "all_gather": ("stage 3",),
}
MAPPING = ("param_group_index", "get_hp_fragment_address", "lp_fragment_address")
ENGINE = (
    "backward", "destroy", "get_global_grad_norm", "optimizer", "set_gradient_accumulation_boundary", "step",
    "was_step_applied", "zero_grad",
)  # fmt: skip
"""Documented ones, but in no list of what will stay."""


def names_of_engines() -> dict[str, dict[str, set[str]]]:
    """On a rank: for each case the names on the engine, its optimizer, a parameter and its parts."""
    proc = process.start(threads=1)
    found = {}
    for case_name, case in CASES.items():
        engine = toy_engine(case, proc)
        deepspeed_engine: Any = engine._deepspeed
        engine.step(global_batches(1)[0])
        parameter: Any = next(p for p in engine.stage.parameters() if p.requires_grad)
        mapping = getattr(parameter, "_hp_mapping", None)
        address = mapping.get_hp_fragment_address() if mapping else None
        found[case_name] = {
            "engine": set(dir(deepspeed_engine)),
            "optimizer": set(dir(deepspeed_engine.optimizer)),
            "parameter": set(dir(parameter)),
            "mapping": set(dir(mapping)),
            "address": set(dir(address)),
            "lp_address": set(dir(mapping.lp_fragment_address)) if mapping else set(),
            "ds_tensor": set(dir(getattr(parameter, "ds_tensor", None))),
        }
        engine.close()
    return found


@cache
def names() -> dict[str, dict[str, set[str]]]:
    return run_ranks(1, names_of_engines)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZER)
def test_borrowed_name_of_the_optimizer(name: str) -> None:
    for case in OPTIMIZER[name]:
        assert name in names()[case]["optimizer"], f"DeepSpeed's optimizer has no {name} at {case}"


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETER)
def test_borrowed_name_of_a_parameter(name: str) -> None:
    for case in PARAMETER[name]:
        assert name in names()[case]["parameter"], f"DeepSpeed's parameters have no {name} at {case}"


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPPING)
def test_borrowed_name_of_the_mapping_to_masters(name: str) -> None:
    for case in STAGES_1_AND_2:
        assert name in names()[case]["mapping"], f"DeepSpeed's _hp_mapping has no {name} at {case}"


@pytest.mark.slow
def test_borrowed_names_of_fragment_addresses() -> None:
    for case in STAGES_1_AND_2:
        assert {"start", "numel"} <= names()[case]["address"], case
        assert "start" in names()[case]["lp_address"], case
    assert "ds_numel" in names()["stage 3"]["ds_tensor"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINE)
def test_method_of_the_engine(name: str) -> None:
    for case in CASES:
        assert name in names()[case]["engine"], f"DeepSpeed's engine has no {name} at {case}"


def prepared_process() -> tuple[Any, int, bool]:
    """On a rank with an engine: DeepSpeed's entry for the op that is skipped, the level of its log, and
    whether torch's compiler is loaded."""
    proc = process.start(threads=1)
    import deepspeed

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    process.prepare_deepspeed()
    toy_engine(Case(2), proc).close()
    is_compatible = deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"]
    return is_compatible, logging.getLogger("DeepSpeed").level, "torch._dynamo" in sys.modules


@pytest.mark.slow
def test_borrowed_names_of_the_module() -> None:
    alone = RankPool(1)  # in the shared process, a test of ZeRO 3 may have loaded the compiler
    try:
        is_compatible, level, has_compiler = alone.run(prepared_process)[0]
    finally:
        alone.close()
    assert is_compatible is False
    assert not has_compiler, "DeepSpeed or an optimizer loads torch's compiler"
    assert level == logging.ERROR, "DeepSpeed's log has another name"


def test_no_other_file_uses_a_borrowed_name() -> None:
    private = [
        n for n in (*OPTIMIZER, *PARAMETER, *MAPPING) if n not in ("optimizer", "partition", "all_gather")
    ]
    used = re.compile(rf"\.(?:{'|'.join(private)})\b")
    root = Path(plinth.__file__).parent
    found = [p.name for p in sorted(root.rglob("*.py")) if used.search(p.read_text())]
    assert found == ["deepspeed_internals.py"]
