"""`poma caption`: the best captions of a vision-language model, kept beside those that are there; resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.caption import command as caption
from jobs.caption import tasks as caption_work
from jobs.caption.config import CaptionJob
from jobs.cli import main
from jobs.common import models
from jobs.common.datasets import Dataset, open_dataset, statistics
from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from plinth import config
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import verify, write_shard
from plinth.errors import ConfigError, DataError, StorageError
from plinth.storage import Storage, StorageOptions
from poma3d.pretrained.config import TeacherConfig
from poma3d.sample import Sample, encode
from tests.helpers.lift.image_sets import lift_job, members, photo, write_folder, write_parquet, write_tar
from tests.helpers.lift.tiny_captioner import save_captioner
from tests.helpers.tiny_jobs import write

KEPT = "a caption that was there"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model."""
    folder = tmp_path_factory.mktemp("vlm")
    save_captioner(folder)
    return folder


@pytest.fixture
def bare(made: Path, tmp_path: Path) -> Path:
    """Six rooms in three shards without captions, but for a view and a scene of the first."""
    rooms = open_dataset(str(made / "rooms"), StorageOptions())
    samples = rooms.samples(6)
    for sample in samples:
        sample.view_captions = [[] for _ in sample.view_captions]
        sample.scene_captions = []
    samples[0].view_captions[1] = [KEPT]
    samples[0].scene_captions = [KEPT]
    write_rooms(tmp_path / "bare", samples, rooms.manifest.attributes)
    return tmp_path


def write_rooms(
    folder: Path, samples: list[Sample], attributes: dict[str, Any], version: int | None = None
) -> None:
    storage = Storage.from_uri(folder)
    shape = replace(Dataset(storage, Manifest([], attributes)).shape, embedding=0)
    for sample in samples:
        sample.image_embedding = sample.caption_embedding = sample.scene_caption_embedding = None
    runs = [samples[i : i + 2] for i in range(0, len(samples), 2)]
    entries = [write_shard(storage, f"{i:06d}", encode(run, shape)) for i, run in enumerate(runs)]
    kept = attributes | {"shape": shape.to_dict(), "teacher": None}
    kept["statistics"] = attributes["statistics"] | statistics(samples)
    if version is not None:
        kept["version"] = version
        manifests.commit(storage.child(manifests.version_folder(version)), Manifest(entries, kept))
    manifests.commit(storage, Manifest(entries, kept))


def settings(folder: Path, made: Path, model: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "caption",
        "data": str(folder / "bare"),
        "output": str(folder / "out"),
        "captioner": {
            "source": str(model), "candidates": 6, "max_new_tokens": 5, "temperature": 1.0,
            "summary_max_new_tokens": 6, "summaries": 8,
        },
        "teacher": {"source": str(made / "teacher")},
        "captions": 3,
        "scene_captions": 2,
        "workers": 0,
        **changes,
    }  # fmt: skip


def job(*arguments: Any, **changes: Any) -> CaptionJob:
    return config.build(CaptionJob, [("job", settings(*arguments, **changes))])


def shards(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "shards").iterdir()}


def test_views_get_their_best_captions_and_scenes_a_summary(
    bare: Path, made: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = open_dataset(str(bare / "bare"), StorageOptions()).samples()
    assert main(["caption", write(bare / "job.yaml", settings(bare, made, model))]) == 0
    assert "11 views were described" in capsys.readouterr().out
    dataset = open_dataset(str(bare / "out"), StorageOptions())
    assert verify(dataset.storage, dataset.manifest) == []
    assert dataset.manifest.attributes["classes"] == dataset.classes, "for the probe"
    teacher = models.open_teacher(TeacherConfig(str(made / "teacher")), StorageOptions())
    assert dataset.teacher == models.record(TeacherConfig(str(made / "teacher")), StorageOptions())
    after = dataset.samples()
    assert (after[0].view_captions[1], after[0].scene_captions) == ([KEPT], [KEPT])
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.depth, new.depth)
        assert (old.scene_id, old.colour) == (new.scene_id, new.colour)
        assert all(1 <= len(captions) <= 3 for captions in new.view_captions)
        assert new.scene_captions
        assert new.image_embedding is not None
        assert new.caption_embedding is not None
        for view, captions in enumerate(new.view_captions):
            features = teacher.encode_texts(captions).astype(np.float32)
            np.testing.assert_array_equal(new.caption_embedding[view, : len(captions)], features)
            scores = features @ new.image_embedding[view].astype(np.float32)
            assert (np.diff(scores) <= 1e-6).all(), "the best first"
    assert main(["caption", str(bare / "job.yaml")]) == 0
    assert "already captioned by this job" in capsys.readouterr().out
    min((bare / "out" / "shards").iterdir()).unlink()
    assert main(["caption", str(bare / "job.yaml")]) == 2
    assert "missing (expected" in capsys.readouterr().err


def test_those_that_are_there_can_be_compared_or_replaced(bare: Path, made: Path, model: Path) -> None:
    compared = caption.caption(job(bare, made, model, existing="compare", captions=20)).samples(1)[0]
    assert KEPT in compared.view_captions[1]
    assert len(compared.view_captions[1]) > 1
    replaced = caption.caption(job(bare, made, model, existing="replace", output=str(bare / "r"))).samples(1)
    assert KEPT not in replaced[0].view_captions[1]
    assert KEPT not in replaced[0].scene_captions


def test_a_repeat_has_the_captions_of_its_view(bare: Path, made: Path, model: Path) -> None:
    rooms = open_dataset(str(bare / "bare"), StorageOptions())
    samples = rooms.samples(2)
    samples[1].colour[1] = samples[1].colour[0]
    write_rooms(bare / "bare", samples, rooms.manifest.attributes)
    repeat = caption.caption(job(bare, made, model)).samples()[1]
    assert repeat.view_captions[0] == repeat.view_captions[1]


@pytest.mark.parametrize(("step", "call"), [("write_shard", 2), ("caption_shard", 3), ("write", 3)])
def test_a_failure_loses_nothing_and_repeats_nothing(
    step: str, call: int, bare: Path, made: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = caption.caption(job(bare, made, model, output=str(bare / "straight")))
    place = {"write_shard": caption_work, "caption_shard": caption, "write": Storage}[step]
    original, calls = getattr(place, step), []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call:
            raise StorageError("the storage went away.")
        return original(*arguments, **named)

    monkeypatch.setattr(place, step, failing)
    with pytest.raises(StorageError):
        caption.caption(job(bare, made, model))
    assert not (bare / "out" / "MANIFEST.json").exists()
    monkeypatch.undo()
    commits = {p: p.stat().st_mtime_ns for p in (bare / "out" / "caption").rglob("*.json")}
    dataset = caption.caption(job(bare, made, model))
    assert shards(bare / "out") == shards(bare / "straight")
    assert dataset.manifest.hash == straight.manifest.hash
    assert {p: p.stat().st_mtime_ns for p in commits} == commits, "what was done is not done again"


def test_what_comes_new_is_added_under_the_same_version(bare: Path, made: Path, model: Path) -> None:
    rooms = open_dataset(str(bare / "bare"), StorageOptions())
    samples, attributes = rooms.samples(), rooms.manifest.attributes
    write_rooms(bare / "bare", samples[:4], attributes, version=1)
    first = caption.caption(job(bare, made, model))
    before = shards(bare / "out")
    write_rooms(bare / "bare", samples, attributes, version=2)
    second = caption.caption(job(bare, made, model))
    assert second.manifest.shards[:2] == first.manifest.shards
    assert before.items() <= shards(bare / "out").items()
    assert (len(before), len(shards(bare / "out"))) == (2, 3)
    pinned = open_dataset(f"{bare}/out#1", StorageOptions())
    assert pinned.manifest.hash == first.manifest.hash
    assert open_dataset(str(bare / "out"), StorageOptions()).manifest.attributes["version"] == 2
    again = caption.caption(job(bare, made, model, data=f"{bare}/bare#1"))
    assert again.manifest.hash == first.manifest.hash
    assert open_dataset(str(bare / "out"), StorageOptions()).manifest.attributes["version"] == 2


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
def test_images_without_captions_are_lifted_and_described(
    kind: str, made: Path, model: Path, tmp_path: Path
) -> None:
    if kind == "folder":
        write_folder(tmp_path / "images", range(4))
    elif kind == "parquet":
        write_parquet(tmp_path / "images" / "x.parquet", range(4))
    else:
        samples = [members(str(seed), photo(seed)) for seed in range(4)]
        files = {k: v for sample in samples for k, v in sample.items() if not k.endswith(".txt")}
        write_tar(tmp_path / "images" / "x.tar", files)
    inputs = [{"uri": str(tmp_path / "images"), "kind": kind, "caption": ""}]
    told = lift_job(tmp_path / "lifted", inputs, gates={"require_caption": False})
    lifted, _ = lift.lift(config.build(LiftJob, [("job", told)]))
    assert [s.view_captions for s in lifted.samples()] == [[[]]] * 4
    described = caption.caption(job(tmp_path, made, model, data=str(tmp_path / "lifted")))
    assert described.manifest.attributes["version"] == 1
    assert all(1 <= len(s.view_captions[0]) <= 3 for s in described.samples())
    assert all(s.scene_captions == [] for s in described.samples()), "one view is no scene"


def test_scenes_take_their_annotation(
    bare: Path, made: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = [s.scene_id for s in open_dataset(str(bare / "bare"), StorageOptions()).samples()]
    path = bare / "scene_cap.json"
    path.write_text(json.dumps({scene: {"captions": [f"this is {scene}"]} for scene in scenes[:2]}))
    annotated = caption.caption(job(bare, made, model, captioner=None, annotations=str(path)))
    assert "captions of 2 of the 6 scenes" in capsys.readouterr().out
    said = [s.scene_captions for s in annotated.samples()]
    assert said == [[KEPT], [f"this is {scenes[1]}"], [], [], [], []]
    assert [s.view_captions[0] for s in annotated.samples()] == [[]] * 6, "no model, no view captions"
    path.write_text(json.dumps({"scene0000_00": {"captions": ["elsewhere"]}}))
    output = str(bare / "other")
    with pytest.raises(
        DataError, match=rf"its ids are such as scene0000_00, the scenes' such as {scenes[0]}"
    ):
        caption.caption(job(bare, made, model, captioner=None, annotations=str(path), output=output))
    path.write_text("[")
    with pytest.raises(DataError, match="not JSON"):
        caption.caption(job(bare, made, model, captioner=None, annotations=str(path), output=output))
    with pytest.raises(ConfigError, match=r"nowhere\.json does not exist"):
        caption.caption(job(bare, made, model, annotations=str(bare / "nowhere.json"), output=output))


def test_what_cannot_be_is_one_line(
    bare: Path, made: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(bare / "job.yaml", settings(bare, made, model))

    def refused(*overrides: str) -> str:
        capsys.readouterr()
        assert main(["caption", file, *overrides]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    assert "output is the data set that is read" in refused(f"output={bare}/bare")
    assert "neither a captioner nor a file of annotations" in refused("captioner=null")
    assert "is no folder here; pin a hub id" in refused("captioner.source=OpenGVLab/InternVL3-14B-hf")
    assert "the job expects captioner.revision 0123" in refused("captioner.revision=0123")
    assert "captions is 0" in refused("captions=0")
    assert "has no version 3" in refused(f"data={bare}/bare#3")
    rooms = open_dataset(str(bare / "bare"), StorageOptions())
    samples = rooms.samples(2)
    for sample in samples:
        sample.colour = []
    write_rooms(bare / "grey", samples, rooms.manifest.attributes)
    assert "keeps 0 colour images for 2 views" in refused(f"data={bare}/grey")
    caption.caption(job(bare, made, model))
    assert "another job built" in refused("captioner.seed=1")
