"""`poma lift`: exactly once, in versions, resumed from any point, and what is rejected."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.embed import command as embed
from jobs.embed.config import EmbedJob
from jobs.lift import command as lift
from jobs.lift import pipeline, versions
from jobs.lift import tasks as lift_work
from jobs.lift.config import LiftJob
from jobs.lift.contact_sheet import GAP_PX, LABEL_PX, THUMBNAIL_PX, VALUE_PX
from jobs.shards.preview import point_maps
from plinth import config
from plinth.data import manifest as manifests
from plinth.data.shards import verify
from plinth.errors import ConfigError, DataError, StorageError
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage, StorageOptions
from plinth.storage.lock import RunLock
from plinth.storage.options import LockConfig
from tests.helpers.lift.image_sets import (
    captions,
    encoded,
    files,
    lift_job,
    members,
    photo,
    shards,
    write_folder,
    write_parquet,
    write_photos_tar,
    write_tar,
)
from tests.helpers.tiny_jobs import SIDE, pretrain_job, write

SEEDS = range(10)


def job(output: Path, inputs: list[dict[str, Any]], **changes: Any) -> LiftJob:
    return config.build(LiftJob, [("job", lift_job(output, inputs, **changes))])


def rejects(folder: Path, version: int = 1) -> list[dict[str, str]]:
    path = folder / "versions" / f"{version:06d}" / "rejects.csv"
    return list(csv.DictReader(path.read_text().splitlines()))


def drawn_rows(path: Path) -> int:
    """Rows of a contact sheet; each must show a picture. What cannot be decoded has no row."""
    sheet = np.asarray(Image.open(path))
    step = LABEL_PX + THUMBNAIL_PX + VALUE_PX + GAP_PX
    tops = range(GAP_PX + LABEL_PX, len(sheet), step)
    assert all(sheet[top : top + 20, GAP_PX : GAP_PX + 20].mean() < 250 for top in tops)
    return len(tops)


@pytest.fixture
def tar(tmp_path: Path) -> dict[str, Any]:
    """Two tars of five photos each, as an input."""
    write_photos_tar(tmp_path / "tars" / "0.tar", SEEDS[:5])
    write_photos_tar(tmp_path / "tars" / "1.tar", SEEDS[5:])
    return {"uri": str(tmp_path / "tars")}


def test_a_set_becomes_samples_of_one_view(tmp_path: Path, tar: dict[str, Any], capsys) -> None:
    assert lift.run_job(job(tmp_path / "out", [tar])) == 0
    assert "version 1 with 10 samples, 10 of them new from 10 images" in capsys.readouterr().out
    dataset = open_dataset(str(tmp_path / "out"), StorageOptions())
    assert captions(dataset) == [photo(seed).caption for seed in SEEDS]
    assert verify(dataset.storage, dataset.manifest) == []
    assert [shard.rows for shard in dataset.manifest.shards] == [3, 2, 3, 2]
    first = dataset.samples(1)[0]
    assert first.depth.shape == (1, 16, 16)
    assert first.depth_scale == pytest.approx(0.001)
    assert first.pose[0, :, 1].tolist() == [0, 0, -1], "y of the camera is down"
    assert len(first.colour) == 1
    assert len({s.sample_id for s in dataset.samples()}) == 10
    stats = dataset.manifest.attributes["statistics"]
    assert (stats["samples"], stats["views"], stats["rejected_frames"]) == (10, 10, 0)


def test_a_street_beside_a_room(tmp_path: Path, tar: dict[str, Any]) -> None:
    """The unit of depth belongs to the row: what reaches farther than millimetres can hold fits in."""
    street = members("s", photo(30))
    metres = np.tile(np.linspace(5, 240, 96), (72, 1))
    street["s.depth.png"] = encoded((metres / 0.01).astype(np.uint16), "PNG")
    write_tar(tmp_path / "street.tar", street)
    outside = {"uri": str(tmp_path / "street.tar"), "depth_unit_m": 0.01}
    dataset, _ = lift.lift(job(tmp_path / "out", [tar, outside], gates={"max_median_depth_m": 0.0}))
    *rooms, last = dataset.samples()
    assert {round(s.depth_scale, 6) for s in rooms} == {0.001}
    assert last.depth_scale == pytest.approx(240 / 65535, rel=1e-3)
    far = point_maps(last)[0, :, -1]
    assert far[:, 1].min() == pytest.approx(237.5, abs=2.5), "as far as it was given, along the view"
    assert np.abs(point_maps(rooms[0])).max() < 5


def test_inspect_tells_the_version(tmp_path: Path, tar: dict[str, Any], capsys) -> None:
    lift.lift(job(tmp_path / "out", [tar]))
    capsys.readouterr()
    assert main(["shards", "inspect", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "version     1" in printed
    assert "10 of 10 scenes, 1 views each" in printed
    assert "give one to `poma lift`" in printed
    sheet = tmp_path / "sheet.png"
    assert main(["shards", "preview", str(tmp_path / "out"), "--samples", "2", "--out", str(sheet)]) == 0
    assert sheet.is_file()


def test_the_same_command_again_has_nothing_to_do(tmp_path: Path, tar: dict[str, Any], capsys) -> None:
    lift.run_job(job(tmp_path / "out", [tar]))
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert lift.run_job(job(tmp_path / "out", [tar])) == 0
    assert "has all of the inputs at version 1" in capsys.readouterr().out
    assert files(tmp_path / "out") == before
    lift.run_job(job(tmp_path / "again", [tar]))
    assert shards(tmp_path / "again") == shards(tmp_path / "out"), "the same job gives the same bytes"


def test_more_images_make_a_version_and_leave_the_one_before(tmp_path: Path, tar: dict[str, Any]) -> None:
    out = tmp_path / "out"
    first, _ = lift.lift(job(out, [tar]))
    before = shards(out)
    write_folder(tmp_path / "more", range(8, 14))
    more = {"uri": str(tmp_path / "more"), "kind": "folder"}
    second, added = lift.lift(job(out, [tar, more]))
    assert second.manifest.attributes["version"] == 2
    assert second.manifest.attributes["previous"] == first.manifest.hash
    assert captions(second) == [photo(seed).caption for seed in range(14)]
    assert second.manifest.shards[: len(before)] == first.manifest.shards
    assert {k: v for k, v in shards(out).items() if k in before} == before
    pinned = manifests.load(Storage.from_uri(out / "versions" / "000001"))
    assert pinned.hash == first.manifest.hash
    assert [(r["reason"], r["place"].rsplit("/", 1)[-1]) for r in rejects(out, 2)] == [
        ("duplicate image", "8.jpg"),
        ("duplicate image", "9.jpg"),
    ]
    assert sum(commit.statistics["samples"] for commit in added) == 4
    # In any order and with the first set left out, what is there is there.
    third, added = lift.lift(job(out, [more]))
    assert (third.manifest.hash, added) == (second.manifest.hash, [])


STEPS: dict[str, tuple[Any, int]] = {
    "scan_piece": (lift, 3),
    "make_plan": (versions, 1),
    "read_part": (pipeline, 5),
    "lift_part": (pipeline, 5),
    "write_shard": (lift_work, 5),
    "write_commit": (lift_work, 5),
    "commit": (manifests, 2),
}
"""Step -> the module that calls it, and how often it does for `two_sets`."""
FAULTS = [(step, call) for step, (_, calls) in STEPS.items() for call in range(1, min(calls, 3) + 1)]


@pytest.fixture
def two_sets(tmp_path: Path, tar: dict[str, Any]) -> list[dict[str, Any]]:
    """Thirteen photos in two layouts."""
    write_parquet(tmp_path / "rows" / "x.parquet", range(8, 13))
    return [tar, {"uri": str(tmp_path / "rows"), "kind": "parquet"}]


def fail_at(step: str, call: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let the storage fail in the n-th call of a step; 0 only counts the calls."""
    calls: Counter[str] = Counter()
    place, _ = STEPS[step]
    original = getattr(place, step)

    def failing(*arguments: Any, **named: Any) -> Any:
        calls[step] += 1
        if calls[step] == call:
            raise StorageError("the storage went away.")
        return original(*arguments, **named)

    monkeypatch.setattr(place, step, failing)
    return calls


def test_every_step_is_called_as_often_as_the_faults_assume(
    tmp_path: Path, two_sets: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = [fail_at(step, 0, monkeypatch) for step in STEPS]
    lift.lift(job(tmp_path / "out", two_sets))
    assert {k: v for calls in counted for k, v in calls.items()} == {k: n for k, (_, n) in STEPS.items()}


@pytest.mark.parametrize(("step", "call"), FAULTS)
def test_a_failure_at_any_step_loses_and_repeats_nothing(
    step: str, call: int, tmp_path: Path, two_sets: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage fails in the n-th call of a step; the same command continues from there."""
    out, straight = tmp_path / "out", tmp_path / "straight"
    expected, _ = lift.lift(job(straight, two_sets))
    fail_at(step, call, monkeypatch)
    with pytest.raises(StorageError):
        lift.lift(job(out, two_sets))
    kept = shards(out)
    written = [key for key in files(out) if key.endswith("MANIFEST.json")]
    assert written == (["versions/000001/MANIFEST.json"] if (step, call) == ("commit", 2) else [])
    dataset, _ = lift.lift(job(out, two_sets))
    assert captions(dataset) == [photo(seed).caption for seed in range(13)]
    assert shards(out) == shards(straight)
    assert kept.items() <= shards(out).items()
    assert dataset.manifest.hash == expected.manifest.hash
    assert verify(dataset.storage, dataset.manifest) == []


def test_a_kill_before_the_newest_version_is_the_one_that_is_read(
    tmp_path: Path, tar: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    lift.lift(job(out, [tar]))
    old = (out / "MANIFEST.json").read_bytes()
    write_photos_tar(tmp_path / "more" / "2.tar", range(20, 22))
    dataset, _ = lift.lift(job(out, [{"uri": str(tmp_path / "more")}]))
    (out / "MANIFEST.json").write_bytes(old)
    healed, added = lift.lift(job(out, [{"uri": str(tmp_path / "more")}]))
    assert (healed.manifest.hash, added) == (dataset.manifest.hash, [])
    assert manifests.load(healed.storage).hash == dataset.manifest.hash


def test_every_reject_is_counted_and_listed(tmp_path: Path, capsys) -> None:
    flat, far = photo(1), photo(2)
    flat.depth = encoded(np.full((72, 96), 2000, np.uint16), "PNG")
    far.depth = encoded((60000 + np.tile(np.arange(96) * 50, (72, 1))).astype(np.uint16), "PNG")
    narrow, bare, tiny = photo(3), photo(4), photo(5)
    narrow.intrinsics = [900.0, 900.0, 48.0, 36.0]
    bare_files = members("4", bare)
    del bare_files["4.depth.png"]
    mute = members("6", photo(6)) | {"6.txt": b" \n"}
    broken = members("7", photo(7)) | {"7.jpg": photo(7).image[:300]}
    tiny_files = members("5", tiny) | {"5.jpg": encoded(np.zeros((20, 20, 3), np.uint8), "JPEG")}
    again = members("9", photo(0))
    samples = [members("0", photo(0)), members("1", flat), members("2", far), members("3", narrow)]
    everything = [*samples, bare_files, tiny_files, mute, broken, again]
    write_tar(tmp_path / "x.tar", {k: v for files in everything for k, v in files.items()})
    gates = {"max_median_depth_m": 50.0}
    assert lift.run_job(job(tmp_path / "out", [{"uri": str(tmp_path / "x.tar")}], gates=gates)) == 0
    printed = capsys.readouterr().out
    expected = Counter(
        {
            "flat depth": 1, "all far": 1, "absurd field of view": 1, "no depth or camera": 1,
            "tiny image": 1, "no caption": 1, "undecodable image": 1, "duplicate image": 1,
        }
    )  # fmt: skip
    table = rejects(tmp_path / "out")
    assert Counter(row["reason"] for row in table) == expected
    assert all(row["image_id"] and "x.tar at byte" in row["place"] for row in table)
    values = {row["reason"]: row["value"] for row in table}
    assert values["tiny image"] == "20 x 20"
    dataset = open_dataset(str(tmp_path / "out"), StorageOptions())
    assert values["duplicate image"] == dataset.samples()[0].scene_id
    assert dataset.manifest.attributes["statistics"]["rejects"] == dict(expected)
    for reason in expected:
        assert f"rejected 1: {reason}" in printed
    assert drawn_rows(tmp_path / "out" / "versions" / "000001" / "gates.png") == len(expected)
    # The thumbnail of a picture that is cut off can be whole, its decoding is not: rejected all the same.
    assert captions(dataset) == [photo(0).caption]


def test_captions_that_match_no_image_are_an_error(tmp_path: Path, tar: dict[str, Any]) -> None:
    write_folder(tmp_path / "set", [20, 21])
    shutil.rmtree(tmp_path / "set" / "pictures")
    inputs = [tar, {"uri": str(tmp_path / "set"), "kind": "folder"}]
    with pytest.raises(DataError, match=r"set: no usable image: 2 x no such image; the first is .*20\.jpg"):
        lift.lift(job(tmp_path / "out", inputs))
    write_tar(tmp_path / "empty" / "0.tar", {})
    with pytest.raises(DataError, match="empty: no usable image: it is empty"):
        lift.lift(job(tmp_path / "out", [{"uri": str(tmp_path / "empty")}]))
    assert not (tmp_path / "out" / "MANIFEST.json").exists()


def test_a_broken_tar_beside_a_good_one_is_a_reject(tmp_path: Path, tar: dict[str, Any]) -> None:
    path = tmp_path / "tars" / "1.tar"
    path.write_bytes(path.read_bytes()[:5000])
    dataset, _ = lift.lift(job(tmp_path / "out", [tar]))
    assert captions(dataset)[:5] == [photo(seed).caption for seed in range(5)]
    assert "broken archive" in {row["reason"] for row in rejects(tmp_path / "out")}


def test_a_broken_tar_that_comes_later_stops_nothing(tmp_path: Path, tar: dict[str, Any]) -> None:
    lift.lift(job(tmp_path / "out", [tar]))
    (tmp_path / "tars" / "2.tar").write_bytes(b"not found" * 500)
    dataset, _ = lift.lift(job(tmp_path / "out", [tar]))
    assert dataset.manifest.attributes["version"] == 2
    assert captions(dataset) == [photo(seed).caption for seed in SEEDS]
    assert [row["reason"] for row in rejects(tmp_path / "out", 2)] == ["broken archive"]


def test_other_settings_do_not_mix(tmp_path: Path, tar: dict[str, Any]) -> None:
    lift.lift(job(tmp_path / "out", [tar]))
    with pytest.raises(ConfigError, match=r"other settings: gates\.min_relief was 0\.02 and is 0\.1"):
        lift.lift(job(tmp_path / "out", [tar], gates={"min_relief": 0.1}))
    (tmp_path / "ingested").mkdir()
    shutil.copy(tmp_path / "out" / "MANIFEST.json", tmp_path / "ingested")
    with pytest.raises(ConfigError, match="another command built"):
        lift.lift(job(tmp_path / "ingested", [tar]))


def test_two_jobs_do_not_add_at_once(tmp_path: Path, tar: dict[str, Any]) -> None:
    lock = {"beat_every_s": 0.1, "dead_after_s": 5.0}
    (tmp_path / "out").mkdir()
    with (
        RunLock(Storage.from_uri(tmp_path / "out"), LockConfig(**lock)),
        pytest.raises(ConfigError, match="out is being written by"),
    ):
        lift.lift(job(tmp_path / "out", [tar], lock=lock))
    dataset, _ = lift.lift(job(tmp_path / "out", [tar], lock=lock))
    assert dataset.manifest.rows == len(SEEDS)
    assert not (tmp_path / "out" / "LOCK.json").exists()


def test_an_input_that_changes_under_the_job_is_named(
    tmp_path: Path, tar: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lift.scan_piece

    def scan_then_change(*arguments: Any) -> None:
        original(*arguments)
        path = tmp_path / "tars" / "1.tar"
        if arguments[0].piece.key != path.name:
            return
        content = bytearray(path.read_bytes())
        place = content.find(b"number 7")
        content[place : place + 8] = b"number 0"
        path.write_bytes(content)

    monkeypatch.setattr(lift, "scan_piece", scan_then_change)
    with pytest.raises(DataError, match=r"1\.tar at byte \d+: the image or its caption changed after"):
        lift.lift(job(tmp_path / "out", [tar]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images_per_shard": 0}, "images_per_shard is 0"),
        ({"gates": {"min_valid_depth": 3.0}}, "min_valid_depth is 3.0"),
        ({"convention": {"depth_unit_m": 0.0}}, "depth_unit_m is 0.0"),
        ({"decode_side_px": 8}, "decode_side_px is 8"),
        ({"lifter": {"kind": "depth_pro"}}, "lifter.source is empty"),
        ({"lifter": {"kind": "vggt", "source": "facebook/VGGT-1B"}}, "pin a hub id"),
        ({"teacher": {"source": "x"}, "convention": {"colour": False}}, "convention.colour is off"),
    ],
)
def test_jobs_that_cannot_be_are_refused(
    change: dict, words: str, tmp_path: Path, tar: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        lift.lift(job(tmp_path / "out", [tar], **change))
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match="There is no input"):
        lift.lift(job(tmp_path / "out", []))


def test_the_teacher_embeds_what_is_lifted(made: Path, tmp_path: Path, tar: dict[str, Any]) -> None:
    dataset, _ = lift.lift(job(tmp_path / "out", [tar], teacher={"source": str(made / "teacher")}))
    assert dataset.teacher == open_dataset(str(made / "rooms"), StorageOptions()).teacher
    for sample in dataset.samples():
        assert sample.image_embedding is not None
        np.testing.assert_allclose(np.linalg.norm(sample.image_embedding, axis=-1), 1, atol=2e-3)
        assert sample.caption_embedding is not None
        assert np.linalg.norm(sample.caption_embedding[0, 0]) == pytest.approx(1, abs=2e-3)


def test_the_warm_up_trains_on_what_was_lifted(made: Path, tmp_path: Path, tar: dict[str, Any]) -> None:
    shape = {"height": SIDE, "width": SIDE, "captions": 3, "scene_captions": 2}
    teacher = {"source": str(made / "teacher")}
    dataset, _ = lift.lift(job(tmp_path / "out", [tar], shape=shape, teacher=teacher))
    training = pretrain_job(tmp_path, main=None, teacher=teacher)
    training["warmup"]["data"]["sources"] = [{"uri": dataset.storage.uri}, {"uri": str(made / "images")}]
    assert main(["pretrain", write(tmp_path / "pretrain.yaml", training)]) == 0
    lines = read_lines(Storage.from_uri(tmp_path / "runs" / "run" / "warmup"))
    assert len(lines) == 4
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_embed_leaves_versions_alone(made: Path, tmp_path: Path, tar: dict[str, Any]) -> None:
    dataset, _ = lift.lift(job(tmp_path / "out", [tar]))
    before = files(tmp_path / "out")
    wanted = {"kind": "embed", "data": dataset.storage.uri, "teacher": {"source": str(made / "teacher")}}
    with pytest.raises(DataError, match="built by `poma lift` in versions"):
        embed.embed([config.build(EmbedJob, [("job", {**wanted, "workers": 0})])])
    assert files(tmp_path / "out") == before
