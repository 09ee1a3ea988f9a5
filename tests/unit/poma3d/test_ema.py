import pytest
import torch

from poma3d.ema import momentum, validate, way_come
from poma3d.network.config import EmaConfig
from tests.helpers.reference import Ema


def test_momentum_is_linear_and_stays_in_its_range() -> None:
    cfg = EmaConfig()
    assert [momentum(cfg, p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([0.996, 0.996, 0.998, 1.0, 1.0])


def test_averages_are_float32_and_move_where_bfloat16_would_not() -> None:
    online = {"w": torch.ones(1000, dtype=torch.bfloat16)}
    ema = Ema(online)
    online = {"w": torch.full((1000,), 2.0, dtype=torch.bfloat16)}
    for _ in range(10):
        ema.update(online, 0.9999)
    torch.testing.assert_close(ema.averages["w"], torch.full((1000,), 2 - 0.9999**10), atol=1e-6, rtol=0)
    target = {"w": torch.zeros(1000, dtype=torch.bfloat16)}
    ema.copy_to(target)
    assert target["w"].dtype is torch.bfloat16
    assert target["w"][0] == 1.0


def test_it_starts_as_a_copy_not_as_the_weights_themselves() -> None:
    weight = torch.zeros(3)
    ema = Ema({"w": weight})
    weight.fill_(1)
    assert torch.equal(ema.averages["w"], torch.zeros(3))


def test_a_momentum_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ema.momentum_end 1.5"):
        validate(EmaConfig(momentum_end=1.5))


@pytest.mark.parametrize(("steps", "total"), [(0, 40), (1, 1), (40, 40), (7, 40)])
def test_the_way_come_is_that_of_an_average_of_a_trained_encoder_that_stays(steps: int, total: int) -> None:
    config = EmaConfig()
    average = Ema({"w": torch.zeros(1)})
    for step in range(steps):
        average.update({"w": torch.ones(1)}, momentum(config, step / max(1, total - 1)))
    assert way_come(config, steps, total) == pytest.approx(float(average.averages["w"]), abs=1e-6)


def test_forty_steps_leave_the_target_encoder_near_its_start() -> None:
    assert way_come(EmaConfig(), 40, 40) == pytest.approx(0.077, abs=0.001)
    assert way_come(EmaConfig(), 10_000, 10_000) > 0.999
