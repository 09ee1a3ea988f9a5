"""A head that sees cells of space from where a question is asked: trained, scored, asked and planned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.ask import answers
from jobs.ask.answers import ask
from jobs.ask.head import features_of, load, open_run, scenes_of
from jobs.ask.pose import agent_at, height_of
from jobs.ask.scene import find
from jobs.cli import main
from jobs.finetune.config import FinetuneJob
from jobs.finetune.questions import FOLDER
from jobs.finetune.readers import agents_of
from jobs.finetune.scenes import open_scenes
from jobs.jobfile import load as load_job
from jobs.plan import heads as plans
from jobs.plan.tuning import TuningPlan
from plinth.checkpoint import save_load
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, write_shard
from plinth.storage import Storage, StorageOptions
from poma3d.annotations import rooms
from poma3d.annotations.poses import agent_of
from poma3d.annotations.rows import Question
from tests.helpers.downstream import heads
from tests.helpers.tiny_jobs import SIDE, ingest_job, write

OPTIONS = StorageOptions()
CELLS = {"tokens": "voxels", "cell_m": 0.5, "max_voxels": 32}


def job_of(home: Path, name: str = "qa", **changes: Any) -> dict[str, Any]:
    split = {
        "annotations": [str(home / "rooms/questions.jsonl")],
        "features": [str(home / "patches")],
        "scenes": [str(home / "rooms")],
    }
    head = {"pool_hidden": 16, "pool_width": 16, "hidden": 32, "attention": "guided"}
    return heads.finetune_job(
        home, name=name, **{"train": split, "val": split, "scene": CELLS, "head": head, **changes}
    )


def run(home: Path, name: str = "qa", **changes: Any) -> int:
    return main(["finetune", write(home / f"{name}.yaml", job_of(home, name, **changes))])


def weights(home: Path, name: str = "qa") -> dict[str, torch.Tensor]:
    storage = Storage.from_uri(home / "runs" / name / "heads" / "checkpoints")
    return save_load.read_full(storage, home / "scratch")


@pytest.fixture(scope="module")
def seeing(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rooms, features with patches, and a run. Leave it as it is."""
    home = tmp_path_factory.mktemp("seeing")
    for name in ("rooms", "teacher", "tower", "encoder", "features"):
        shutil.copytree(prepared / name, home / name)
    job = {
        "kind": "features", "encoder": str(home / "encoder"), "data": str(home / "rooms"),
        "output": str(home / "patches"), "workers": 0, "patches": True,
    }  # fmt: skip
    assert main(["features", write(home / "patches.yaml", job)]) == 0
    assert run(home) == 0
    return home


def posed_questions(home: Path) -> list[Question]:
    found = [q for q in rooms.read([home / "rooms/questions.jsonl"]).questions if q.position is not None]
    assert found
    return found


@pytest.mark.parametrize("trained", [False, True])
def test_it_says_when_asked_what_it_said_when_it_was_scored(seeing: Path, trained: bool) -> None:
    name = "encoder" if trained else "qa"
    if trained:
        split = {"annotations": [str(seeing / "rooms/questions.jsonl")], "scenes": [str(seeing / "rooms")]}
        encoder = {"source": str(seeing / "encoder"), "lr": 1e-3}
        assert run(seeing, name, train=split, val=split, encoder=encoder) == 0
    opened = open_run(str(seeing / "runs" / name), OPTIONS)
    scenes = scenes_of(opened, None)
    head = load(opened, scenes) if trained else load(opened, features_of(opened, None), scenes)
    predictions = seeing / "runs" / name / "predictions/val-best.jsonl"
    predicted = {
        line["question_id"]: line["answers"] for line in map(json.loads, predictions.read_text().splitlines())
    }
    for question in posed_questions(seeing)[::7]:
        text = question.asked(" ")[0]
        said = ask(head, find(head, question.scene_id), [text], agent_of(question, None))
        best = np.argsort(-said.logits[0], kind="stable")[:10]
        assert [head.answers.texts[i] for i in best] == predicted[question.question_id]
        assert said.attention.sum() == pytest.approx(1, abs=1e-5)
        assert np.isfinite(said.without).all()


def test_choices_of_views_are_answered_some_at_a_time(seeing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_run(str(seeing / "runs/qa"), OPTIONS)
    head = load(opened, features_of(opened, None), scenes_of(opened, None))
    scene = find(head, posed_questions(seeing)[0].scene_id)
    together = ask(head, scene, ["is there a bed?"])
    monkeypatch.setattr(answers, "CHOICES_AT_ONCE", 1)
    apart = ask(head, scene, ["is there a bed?"])
    for name in ("logits", "attention", "without"):
        np.testing.assert_allclose(getattr(apart, name), getattr(together, name), atol=1e-5)
    assert together.without.any()


def test_it_answers_from_where_the_question_is_asked(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = posed_questions(seeing)[0]
    words = ["ask", str(seeing / "runs/qa"), question.scene_id, question.question]
    words += ["--situation", question.situations[0], "--output", str(tmp_path / "asked.html")]
    said = []
    for pose in ([], ["--pose", "1", "2", "0"], ["--pose", "1", "2", "90"]):
        capsys.readouterr()
        assert main([*words, *pose]) == 0
        said.append(capsys.readouterr().out)
    assert "no place was given: see --pose" in said[0]
    assert "--pose" not in said[1]
    assert said[1] != said[2]
    page = (tmp_path / "asked.html").read_text(encoding="utf-8")
    assert "attention of the head to this question" in page
    for place, says in ((("1", "nan", "0"), "not finite"), (("1", "1e39", "0"), "farther than 10000 m")):
        assert main([*words, "--pose", *place]) == 2
        assert says in capsys.readouterr().err


def test_whoever_asks_stands_as_high_as_those_of_the_questions(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of poses differ in their zero; `--pose` has no height."""
    for name in ("rooms", "tower", "encoder", "patches"):
        shutil.copytree(seeing / name, tmp_path / name)
    file = tmp_path / "rooms/questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    posed = next(row for row in rows if row.get("position"))
    for row in rows:
        if row.get("position"):
            row["position"][2] = 1.5 if row["scene_id"] == posed["scene_id"] else 0.5
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(tmp_path) == 0
    storage = Storage.from_uri(tmp_path / "runs/qa")
    assert height_of(storage, FOLDER, posed["scene_id"]) == 1.5
    assert height_of(storage, FOLDER, "another scene") == 0.5
    assert height_of(Storage.from_uri(seeing / "runs/qa"), FOLDER, posed["scene_id"]) == 0
    assert height_of(Storage.from_uri(tmp_path / "nowhere"), FOLDER, posed["scene_id"]) == 0
    words = ["ask", str(tmp_path / "runs/qa"), posed["scene_id"], "is there a bed?", "--pose", "1", "2", "90"]
    words += ["--output", str(tmp_path / "asked.html")]
    said = []
    for _ in range(2):
        capsys.readouterr()
        assert main(words) == 0
        said.append(capsys.readouterr().out)
        shutil.rmtree(tmp_path / "runs/qa/questions", ignore_errors=True)
    assert said[0] != said[1]


def test_a_pose_is_that_of_the_annotations(tmp_path: Path) -> None:
    quarter = (0.0, 0.0, float(np.sqrt(0.5)), float(np.sqrt(0.5)))
    asked = Question("s", "q", "?", ("a",), position=(1.0, 2.0, 0.0), orientation=quarter, frame="world")
    found = agent_at([1.0, 2.0, 90.0], Storage.from_uri(tmp_path / "nowhere"), FOLDER, "s")
    assert found is not None
    np.testing.assert_allclose(found, agent_of(asked, None), atol=1e-6)


def test_a_run_that_lost_its_end_ends_as_before(seeing: Path, tmp_path: Path) -> None:
    for name in ("rooms", "teacher", "tower", "encoder", "patches", "runs"):
        shutil.copytree(seeing / name, tmp_path / name)
    (tmp_path / "runs/qa/config.yaml").unlink()
    shutil.rmtree(max((tmp_path / "runs/qa/heads/checkpoints").glob("*4")))
    assert run(tmp_path) == 0
    straight, resumed = weights(seeing), weights(tmp_path)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_poses_decide_the_rows(seeing: Path, tmp_path: Path) -> None:
    """A question that is asked from elsewhere is another row."""
    for name in ("rooms", "tower", "encoder", "patches"):
        shutil.copytree(seeing / name, tmp_path / name)
    assert run(tmp_path, "before") == 0
    file = tmp_path / "rooms/questions.jsonl"
    file.write_text(file.read_text().replace('"position": [', '"position": [0.5, 0.5, 0.0], "was": ['))
    assert run(tmp_path, "after") == 0
    first, second = weights(tmp_path, "before"), weights(tmp_path, "after")
    assert not torch.equal(first["head.views.fc1.weight"], second["head.views.fc1.weight"])


def test_its_plan_counts_the_cells(seeing: Path, tmp_path: Path) -> None:
    """The head is wider by what weighs cells, and by what the question adds to that."""

    def planned(job: dict[str, Any]) -> TuningPlan:
        read = load_job(FinetuneJob, Path(write(tmp_path / "plan.yaml", job)), [])
        (stage,) = plans.plan(read, None, 0.4, []).stages
        return stage

    cells, views = planned(job_of(seeing)), planned(heads.finetune_job(seeing))
    real = weights(seeing)
    assert cells.size.parameters == sum(weight.numel() for weight in real.values())
    assert cells.size.parameters > views.size.parameters


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scene": {**CELLS, "longest_wave_m": float("inf")}}, "below scene.longest_wave_m inf"),
        ({"scene": {"tokens": "patches"}}, "scene.tokens is 'patches'; use one of views, voxels"),
        ({"head": {"attention": "blind"}}, "head.attention is 'blind'; use one of separate, guided"),
        ({"head": {"attention": "guided", "inputs": "question"}}, "where both are seen"),
        ({"head": {"inputs": "question"}}, "which nothing would look at"),
        ({"train": {"annotations": ["x"], "features": ["y"]}}, "train.scenes is empty"),
        ({"scene": {"tokens": "views"}}, "train.scenes is given without an encoder"),
        ({"qa": {"task": "rooms", "scans": "nowhere"}}, "qa.scans: "),
    ],
)
def test_mistakes_are_one_line(
    seeing: Path, tmp_path: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    job = job_of(seeing, output=str(tmp_path), **changes)
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_poses_that_cannot_be_brought_to_our_frame_are_counted_by_split(
    seeing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = posed_questions(seeing)
    found = agents_of([replace(asked[0], frame="sqa3d"), *asked[1:4]], None, "qa.scans", "val")
    assert [each is None for each in found] == [True, False, False, False]
    assert "val: 1 of 4 questions have a pose that cannot" in capsys.readouterr().out


def test_features_without_patches_are_refused(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {
        "annotations": [str(seeing / "rooms/questions.jsonl")],
        "features": [str(seeing / "features")], "scenes": [str(seeing / "rooms")],
    }  # fmt: skip
    job = job_of(seeing, output=str(tmp_path), train=split, val=split)
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 2
    assert "hold no patch tokens, and scene.tokens is voxels" in capsys.readouterr().err


def test_scenes_with_other_views_than_their_features_are_refused(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their patches would be put where other views looked."""
    storage = Storage.from_uri(shutil.copytree(seeing / "rooms", tmp_path / "rooms"))
    manifest = manifests.load(storage)
    table = RowGroupReader(storage).read_shard(manifest.shards[0])
    at = table.schema.get_field_index("view_valid")
    field = table.schema.field(at)
    other = [bytes([1, 0]), *table["view_valid"].to_pylist()[1:]]
    table = table.set_column(at, field, pa.array(other, field.type))
    shards = [write_shard(storage, "other", table), *manifest.shards[1:]]
    manifests.commit(storage, Manifest(shards, manifest.attributes))
    job = job_of(seeing, output=str(tmp_path))
    job["val"] = {**job["val"], "scenes": [str(tmp_path / "rooms")]}
    capsys.readouterr()
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has other views in" in line


def test_scans_are_of_heads_that_look_at_poses(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = heads.finetune_job(seeing, output=str(tmp_path), qa={"task": "rooms", "scans": "scans"})
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 2
    assert "without scene.tokens=voxels no pose is looked at" in capsys.readouterr().err


def ingested(folder: Path, size: int = SIDE, **changes: Any) -> str:
    """The first rooms of `rooms`, ingested otherwise."""
    job = ingest_job(folder / "ingested", **changes)
    job["shape"] |= {"height": size, "width": size}
    job["reader"]["rooms"]["image_size"] = size
    assert main(["ingest", write(folder / "ingest.yaml", job)]) == 0
    return str(folder / "ingested")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"views": 3}, "have 3 views, their features 2 in"),
        ({"size": 30}, "have views of 30 x 30 pixels, their features 16 square patches in"),
        ({"rooms": 4}, "Name the data sets that the features of these 4 were made of"),
    ],
)
def test_scenes_that_features_were_not_made_of_are_refused(
    seeing: Path, tmp_path: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(seeing, output=str(tmp_path))
    job["val"] = {**job["val"], "scenes": [ingested(tmp_path, **changes)]}
    capsys.readouterr()
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_places_are_needed_of_the_scene_that_is_asked_about(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set that is named with --data needs no other scene of the job's features."""
    first, *_, last = open_scenes([str(seeing / "rooms")], OPTIONS).scene_ids()
    named = ingested(tmp_path, rooms=4)
    words = ["ask", str(seeing / "runs/qa")]
    rest = ["is there a bed?", "--pose", "1", "-2", "0", "--output", str(tmp_path / "asked.html")]
    said = []
    for flags in ([], ["--data", named]):
        capsys.readouterr()
        assert main([*words, first, *rest, *flags]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "asked.html" in said[1]
    assert main([*words, last, *rest, "--data", named]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"has no scene {last}, whose features are in" in line
    assert main([*words, "nowhere", *rest]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has no scene 'nowhere'" in line


def test_a_head_of_views_looks_at_no_pose(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = heads.finetune_job(seeing, output=str(tmp_path))
    assert main(["finetune", write(tmp_path / "job.yaml", job)]) == 0
    scene = posed_questions(seeing)[0].scene_id
    capsys.readouterr()
    assert main(["ask", str(tmp_path / "qa"), scene, "is there a bed?", "--pose", "1", "1", "0"]) == 2
    assert "looks at no pose" in capsys.readouterr().err
