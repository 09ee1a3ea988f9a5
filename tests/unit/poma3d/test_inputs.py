import math
from dataclasses import replace

import pytest
import torch

from poma3d.inputs import (
    Samples,
    choose_captions,
    fake_batch,
    point_maps,
    read_samples,
    turn,
    uniform,
    valid_views,
)
from poma3d.sample import TENSOR_COLUMNS
from tests.helpers import tiny


def samples(epoch: int, keys: list[int]) -> Samples:
    return Samples([epoch] * len(keys), keys)


def draw_captions(
    embeddings: torch.Tensor, counts: torch.Tensor, tag: str, seed: int, of: Samples
) -> torch.Tensor:
    return choose_captions(embeddings, counts, uniform(tuple(counts.shape[1:]), tag, seed, of))


def test_captions_are_drawn_per_sample_and_epoch_among_those_that_exist() -> None:
    n, views, captions = 200, 2, 3
    # caption c of every view is the vector (c, c): what is drawn can be read off
    embeddings = torch.arange(captions)[:, None].expand(n, views, captions, 2).float()
    counts = torch.tensor([3, 1], dtype=torch.uint8).expand(n, views)
    keys = list(range(n))
    drawn = draw_captions(embeddings, counts, "view-captions", 0, samples(0, keys))
    assert drawn.shape == (n, views, 2)
    seen = torch.bincount(drawn[:, 0, 0].long(), minlength=3)
    assert seen.min() > n / 3 / 2
    assert drawn[:, 1].max() == 0  # only caption 0 exists
    alone = draw_captions(embeddings[7:8], counts[7:8], "view-captions", 0, samples(0, [7]))
    assert torch.equal(alone[0], drawn[7])
    later = draw_captions(embeddings, counts, "view-captions", 0, samples(1, keys))
    assert not torch.equal(later, drawn)


def test_identity_and_validity_are_read_from_the_batch() -> None:
    batch = fake_batch(tiny.shape(), TENSOR_COLUMNS, 3, 0)
    batch["view_valid"][0, 1] = 0
    batch["sample_valid"][2] = False
    batch["sample_key"][1] = -(2**63)
    batch["epoch"][:] = 4
    found = read_samples(batch)
    assert found.epochs == [4, 4, 4]
    assert found.keys == batch["sample_key"].tolist()
    assert valid_views(batch).tolist() == [[True, False, True], [True, True, True], [False, False, False]]


def test_a_row_without_captions_gives_padding_not_an_error() -> None:
    embeddings = torch.zeros(1, 2, 4)
    assert draw_captions(embeddings, torch.tensor([0]), "scene-captions", 0, samples(0, [1])).shape == (1, 4)


def test_depth_as_bits_of_int16_or_as_uint16_is_the_same() -> None:
    batch = fake_batch(tiny.shape(), TENSOR_COLUMNS, 2, 0)
    batch["depth"][0, 0, 0, 0] = -1  # the bits of 65535
    as_uint16 = {**batch, "depth": batch["depth"].view(torch.uint16)}
    points = [point_maps(b) for b in (batch, as_uint16)]
    assert torch.equal(*points)
    assert points[0].shape == (2, 3, 48, 48, 3)
    assert points[0][0, 0, 0, 0].norm() > 65


def test_turning_the_cameras_turns_the_scene_about_the_vertical() -> None:
    batch = fake_batch(tiny.shape(), TENSOR_COLUMNS, 2, 0)
    batch["depth"][0, 0, :4] = 0
    plain = point_maps(batch)
    turned = point_maps(batch, turn(samples(3, [1, 2]), 180, 0))
    rotation = turn(samples(3, [1, 2]), 180, 0)
    expected = torch.einsum("nij,nvhwj->nvhwi", rotation, plain)
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(turned[0, 0, :4], torch.zeros(4, 48, 3))  # no depth stays (0, 0, 0)
    torch.testing.assert_close(turned[..., 2], plain[..., 2])
    assert not torch.allclose(rotation[0], rotation[1])
    assert torch.equal(turn(samples(3, [2]), 180, 0)[0], rotation[1])


def test_stored_points_are_the_points_and_turn_with_the_scene() -> None:
    shape = replace(tiny.shape(), xyz=True)
    batch = fake_batch(shape, [*shape.geometry, "view_valid"], 2, 0)
    assert "depth" not in batch
    batch["xyz"][0, 0, 0, 0] = 0
    keys = samples(0, [1, 2])
    plain = point_maps(batch)
    assert plain.dtype == torch.float32
    assert torch.equal(plain, batch["xyz"].float())
    turned = point_maps(batch, turn(keys, 180.0, 0))
    rotation = turn(keys, 180.0, 0)
    torch.testing.assert_close(turned, torch.einsum("nij,nvhwj->nvhwi", rotation, plain))
    assert turned[0, 0, 0, 0].tolist() == [0, 0, 0], "no point stays no point"


def test_turns_stay_in_their_range() -> None:
    rotation = turn(samples(0, list(range(100))), 10, 0)
    angle = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    assert angle.abs().max() <= math.radians(10)
    assert angle.std() == pytest.approx(math.radians(20) / 12**0.5, rel=0.3)


def test_a_fake_batch_has_the_schema_s_shapes_and_dtypes() -> None:
    shape = tiny.shape()
    batch = fake_batch(shape, TENSOR_COLUMNS, 2, 0)
    assert {"sample_valid", "sample_key", "sample_id", "epoch"} <= set(batch)
    expected = {
        "depth": ((2, 3, 48, 48), torch.int16), "depth_scale": ((2,), torch.float32),
        "intrinsics": ((2, 3, 4), torch.float32), "pose": ((2, 3, 3, 4), torch.float32),
        "view_valid": ((2, 3), torch.uint8), "image_embedding": ((2, 3, 16), torch.float16),
        "caption_embedding": ((2, 3, 3, 16), torch.float16), "caption_count": ((2, 3), torch.uint8),
        "scene_caption_embedding": ((2, 2, 16), torch.float16), "scene_caption_count": ((2,), torch.uint8),
        "image_tokens": ((2, 3, 36, 32), torch.float16),
    }  # fmt: skip
    assert {n: (tuple(batch[n].shape), batch[n].dtype) for n in TENSOR_COLUMNS} == expected
    again = fake_batch(shape, TENSOR_COLUMNS, 2, 0)
    assert torch.equal(again["sample_key"], batch["sample_key"])
    assert not torch.equal(fake_batch(shape, TENSOR_COLUMNS, 2, 1)["sample_key"], batch["sample_key"])
