import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poma3d.masking import draw_masks, sizes, validate
from poma3d.network.config import MaskConfig

GRID = (14, 14)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31), epoch=st.integers(0, 200), key=st.integers(-(2**63), 2**63 - 1),
    grid=st.sampled_from([(14, 14), (6, 6), (8, 12), (16, 16), (12, 16)]),
)  # fmt: skip
def test_masks_are_blocks_and_a_context_without_them(
    seed: int, epoch: int, key: int, grid: tuple[int, int]
) -> None:
    cfg = MaskConfig()
    validate(cfg, grid)
    masks = draw_masks(cfg, grid, 5, seed, [epoch], [key])
    size = sizes(cfg, grid, seed, epoch)
    height, width = size.target
    patches = grid[0] * grid[1]
    assert masks.targets.shape == (1, 5, 4, height * width)
    assert masks.context.shape == (1, 5, size.keep)
    assert size.keep >= cfg.min_context
    assert masks.targets.min() >= 0
    assert masks.targets.max() < patches
    for view in range(5):
        context = masks.context[0, view]
        assert torch.equal(context.unique(), context)  # ascending, none twice
        assert not torch.isin(context, masks.targets[0, view]).any()
        for block in masks.targets[0, view]:
            rows, columns = block // grid[1], block % grid[1]
            assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == size.target
            assert len(block.unique()) == height * width


def test_sizes_stay_in_their_ranges_up_to_rounding() -> None:
    cfg = MaskConfig()
    seen = set()
    for epoch in range(50):
        (h, w), (ch, cw), keep, _ = sizes(cfg, GRID, 0, epoch)
        seen.add((h, w))
        assert 0.12 < h * w / 196 < 0.23
        assert 0.6 < h / w < 1.8
        assert 0.84 < ch * cw / 196 <= 1.0
        assert keep >= 10
    assert len(seen) > 4  # sizes vary with the epoch


def test_a_sample_has_the_same_masks_in_any_company() -> None:
    cfg = MaskConfig()
    together = draw_masks(cfg, GRID, 3, 7, [4] * 5, [10, 11, 12, 13, 14])
    for i, key in enumerate([10, 11, 12, 13, 14]):
        alone = draw_masks(cfg, GRID, 3, 7, [4], [key])
        assert torch.equal(alone.context[0], together.context[i])
        assert torch.equal(alone.targets[0], together.targets[i])


def test_positions_change_with_epoch_view_and_sample() -> None:
    cfg = MaskConfig()
    masks = draw_masks(cfg, GRID, 2, 0, [0, 0], [1, 2])
    assert not torch.equal(masks.context[0, 0], masks.context[0, 1])
    assert not torch.equal(masks.context[0], masks.context[1])
    later = draw_masks(cfg, GRID, 2, 0, [1], [1])
    assert later.context.shape != masks.context[:1].shape or not torch.equal(later.context, masks.context[:1])


def test_trimming_prefers_no_part_of_the_view() -> None:
    masks = draw_masks(MaskConfig(), GRID, 400, 0, [0], [1])
    rows = torch.bincount((masks.context // 14).flatten(), minlength=14).float()
    assert rows[:7].sum() / rows.sum() == pytest.approx(0.5, abs=0.03)


def test_views_below_the_kept_count_are_drawn_again() -> None:
    # the count of the luckiest reference layouts: nearly every view has to be drawn again, some fall back
    cfg = MaskConfig(keep_quantile=0.999)
    keep = sizes(cfg, GRID, 0, 0).keep
    masks = draw_masks(cfg, GRID, 64, 0, [0], [1])
    assert masks.context.shape[-1] == keep
    for view in range(64):
        assert not torch.isin(masks.context[0, view], masks.targets[0, view]).any()


def test_several_epochs_in_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"epochs \[0, 1\]"):
        draw_masks(MaskConfig(), GRID, 1, 0, [0, 1], [1, 2])


@pytest.mark.parametrize(
    ("cfg", "grid", "words"),
    [
        (MaskConfig(), (4, 4), "lower masks.min_context"),
        (MaskConfig(target_scale_min=0.3), GRID, "masks.target_scale_min 0.3"),
        (MaskConfig(context_scale_max=1.5), GRID, "masks.context_scale_max 1.5"),
        (MaskConfig(target_blocks=0), GRID, "masks.target_blocks"),
    ],
)
def test_impossible_masks_are_refused(cfg: MaskConfig, grid: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        validate(cfg, grid)
