"""Which samples are named when a number is not finite; the engine's side is in test_engine."""

from __future__ import annotations

import pytest
import torch

from plinth.engine import guards
from plinth.errors import NonFiniteError
from plinth.world import World

ALONE = World(0, 1)
BATCH = {"sample_id": ["a", "b", "c"], "sample_key": torch.tensor([1, 2, 3])}


def test_suspects_are_samples_with_non_finite_features() -> None:
    rows = torch.ones(3, 2, 2)
    rows[1, 0, 1] = float("inf")
    assert guards.suspects(
        BATCH, {"f": rows, "mask": torch.ones(3, dtype=torch.bool)}, torch.tensor(0.0)
    ) == ["b"]


def test_all_of_a_micro_batch_whose_own_loss_is_not_finite() -> None:
    assert guards.suspects(BATCH, {"f": torch.ones(3, 1)}, torch.tensor(float("nan"))) == ["a", "b", "c"]


def test_nobody_where_all_is_well() -> None:
    assert guards.suspects(BATCH, {"f": torch.ones(3, 1)}, torch.tensor(0.0)) == []


def test_keys_stand_in_for_ids() -> None:
    batch = {"sample_key": torch.tensor([7, 8])}
    assert guards.suspects(batch, {}, torch.tensor(float("nan"))) == ["7", "8"]


def test_non_finite_error_names_step_rank_and_few_samples() -> None:
    ids = [f"s{i}" for i in range(20)]
    with pytest.raises(
        NonFiniteError, match=r"The loss of step 7 is not finite; nothing was applied"
    ) as caught:
        guards.fail("loss", 7, ids, ALONE)
    assert "rank 0: s0, s1, s2, s3, s4, s5, s6, s7 and 12 more" in str(caught.value)


def test_passes_that_differ_are_refused() -> None:
    first = {"f": torch.tensor([1.0, 2.0]), "g": torch.tensor([5.0, 9.0])}
    second = {"f": torch.tensor([1.0, 2.002], requires_grad=True), "g": torch.tensor([5.0, 3.0])}
    differences = guards.replay_differences(first, second)
    assert differences.keys() == {"f"}, "no gradient goes through the other"
    guards.check_replay({name: float(value) for name, value in differences.items()})
    second["f"] = torch.tensor([1.5, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match=r"feature 'f' differs by 0\.25 of its largest"):
        guards.check_replay({n: float(v) for n, v in guards.replay_differences(first, second).items()})
