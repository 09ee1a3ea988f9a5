import pytest
import torch

from poma3d.network.config import PredictorConfig
from poma3d.network.predictor import Predictor, sin_cos_positions, validate

GRID = (4, 6)


def test_shapes_and_gradients() -> None:
    predictor = Predictor(PredictorConfig(layers=2, width=16, heads=2), 24, GRID)
    context = torch.randn(3, 5, 24, requires_grad=True)
    index = torch.randint(24, (3, 5))
    targets = torch.randint(24, (3, 4, 6))
    predicted = predictor(context, index, targets)
    assert predicted.shape == (3, 4, 6, 24)
    predicted.square().sum().backward()
    assert context.grad is not None
    assert all((p.grad is not None) == p.requires_grad for p in predictor.parameters())


def test_a_block_is_predicted_without_the_others() -> None:
    predictor = Predictor(PredictorConfig(layers=2, width=16, heads=2), 24, GRID)
    context, index = torch.randn(2, 5, 24), torch.randint(24, (2, 5))
    targets = torch.randint(24, (2, 4, 6))
    together = predictor(context, index, targets)
    torch.testing.assert_close(predictor(context, index, targets[:, 1:2]), together[:, 1:2])


def test_places_matter() -> None:
    torch.manual_seed(0)
    predictor = Predictor(PredictorConfig(layers=2, width=16, heads=2), 24, GRID)
    context, targets = torch.randn(1, 5, 24), torch.arange(6).reshape(1, 1, 6)
    here = predictor(context, torch.arange(5)[None], targets)
    assert not torch.allclose(here, predictor(context, torch.arange(5)[None] + 9, targets))
    assert not torch.allclose(here, predictor(context, torch.arange(5)[None], targets + 9))


def test_positions_are_distinct_and_separable() -> None:
    position = sin_cos_positions(16, GRID).reshape(*GRID, 16)
    assert len(torch.unique(position.reshape(-1, 16), dim=0)) == 24
    assert torch.equal(position[0, :, :8], position[0, :1, :8].expand(6, -1))  # the row's half
    assert torch.equal(position[:, 0, 8:], position[:1, 0, 8:].expand(4, -1))  # the column's half


@pytest.mark.parametrize("cfg", [PredictorConfig(width=30, heads=2), PredictorConfig(width=32, heads=3)])
def test_sizes_that_do_not_divide_are_refused(cfg: PredictorConfig) -> None:
    with pytest.raises(ValueError, match=r"predictor\.width"):
        validate(cfg)
