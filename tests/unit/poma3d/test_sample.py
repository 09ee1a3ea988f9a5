"""The schema: what is written is what is read, ids are content, and wrong shapes name the scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poma3d.sample import Sample, SampleShape, decode, encode, schema, tensor_spec, to_samples

SHAPE = SampleShape(views=2, height=3, width=4, captions=2, scene_captions=2, embedding=5)


def sample(seed: int = 0, **changes: object) -> Sample:
    rng = np.random.default_rng(seed)
    made = Sample(
        scene_id=f"scene{seed}",
        source="test",
        depth=rng.integers(0, 65536, (2, 3, 4)).astype(np.uint16),
        intrinsics=rng.random((2, 4), np.float32),
        pose=rng.random((2, 3, 4), np.float32),
        view_valid=np.array([1, 0], np.uint8),
        view_captions=[["a chair", "one chair", "too many"], []],
        scene_captions=["an office"],
        colour=[b"jpeg", b""],
        image_embedding=rng.random((2, 5)).astype(np.float16),
        caption_embedding=rng.random((2, 2, 5)).astype(np.float16),
        scene_caption_embedding=rng.random((2, 5)).astype(np.float16),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_round_trip_through_parquet(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(3)]
    pq.write_table(encode(samples, SHAPE), tmp_path / "a.parquet", row_group_size=2)
    table = pq.read_table(tmp_path / "a.parquet")
    got = decode(table)
    for name in ("depth", "intrinsics", "pose", "view_valid", "image_embedding", "caption_embedding"):
        np.testing.assert_array_equal(got[name], np.stack([getattr(s, name) for s in samples]), name)
    assert got["caption_count"].tolist() == [[2, 0]] * 3  # only C = 2 of the three are counted
    assert got["scene_caption_count"].tolist() == [1] * 3
    assert table["view_captions"].to_pylist() == [s.view_captions for s in samples]
    np.testing.assert_array_equal(decode(table.slice(1, 1))["depth"][0], samples[1].depth)
    again = to_samples(table)
    assert [s.sample_id for s in again] == [s.sample_id for s in samples] == table["sample_id"].to_pylist()
    assert encode(again, SHAPE).equals(table)
    chunked = pa.concat_tables([table, table])
    assert decode(chunked, ["pose"])["pose"].shape == (6, 2, 3, 4)


def test_without_a_teacher_there_are_no_embedding_columns() -> None:
    bare = replace(SHAPE, embedding=0)
    assert not [name for name in schema(bare).names if name.endswith(("embedding", "tokens"))]
    table = encode([sample(image_embedding=None)], bare)
    assert decode(table)["depth"].dtype == np.uint16


def test_patch_tokens_are_a_column_when_asked_for() -> None:
    shape = replace(SHAPE, image_tokens=3, token_width=6)
    tokens = np.random.default_rng(0).random((2, 3, 6)).astype(np.float16)
    table = encode([sample(image_tokens=tokens)], shape)
    np.testing.assert_array_equal(decode(table)["image_tokens"][0], tokens)
    assert "image_tokens" not in schema(SHAPE).names


def test_ids_are_hashes_of_the_content() -> None:
    assert sample().sample_id == sample().sample_id
    others = [
        sample(scene_id="other"),
        sample(depth=sample().depth ^ 1),
        sample(view_captions=[["a chair"], []]),
        sample(depth_scale=0.002),
    ]
    assert len({s.sample_id for s in [sample(), *others]}) == 5
    embedded = sample(image_embedding=None, caption_embedding=None)
    assert embedded.sample_id == sample().sample_id, "a new teacher must not change the order of the data"


def test_fields_carry_dtype_shape_and_unit() -> None:
    field = schema(SHAPE).field("depth")
    assert tensor_spec(field) == (np.dtype(np.uint16), (2, 3, 4))
    assert b"metres" in field.metadata[b"unit"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"depth": np.zeros((2, 4, 3), np.uint16)},
            r"scene0: depth .* \(2, 4, 3\), expected \(2, 3, 4\)",
        ),
        ({"pose": np.zeros((2, 4, 4), np.float32)}, "scene0: pose has shape"),
        ({"view_captions": [["a chair", "  "], []]}, "scene0: an empty caption"),
        ({"scene_captions": [""]}, "scene0: an empty caption"),
    ],
)
def test_bad_rows_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode([sample(**changes)], SHAPE)
