"""`poma ask`: answers are those of the head's checkpoint, views those it weighed, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.ask.answers import ask
from jobs.ask.head import features_of, load, open_run
from jobs.ask.scene import AskedScene, find
from jobs.cli import main
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.storage import Storage, StorageOptions
from tests.helpers.downstream import heads
from tests.helpers.tiny_jobs import ingest_job, write

SCENE = "room-0-0000003"
TEXT = "how many chairs are there ?"


@pytest.fixture(scope="session")
def answering(prepared: Path) -> Path:
    """`prepared`/runs/qa: a head of four steps."""
    assert main(["finetune", write(prepared / "qa.yaml", heads.finetune_job(prepared))]) == 0
    return prepared / "runs/qa"


@pytest.fixture
def run(answering: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(answering, tmp_path / "qa"))


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Asks with further words; gives the exit code, what was said and what was wrong."""

    def call(run: Path, *words: str, scene: str = SCENE, text: str = TEXT) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["ask", str(run), scene, text, *words, "--output", str(tmp_path / "asked.html")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def page_data(path: Path) -> dict[str, Any]:
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(encoding="utf-8")
    )
    assert found is not None
    return dict(json.loads(found[1]))


def scene(views: np.ndarray, valid: np.ndarray) -> AskedScene:
    return AskedScene(valid, {"views": views}, "here", "here")


def test_answers_are_those_of_the_predictions(answering: Path, prepared: Path) -> None:
    """The head that is asked says of each question what it said when it was scored."""
    run = open_run(str(answering), StorageOptions())
    features = features_of(run, None)
    opened = load(run, features)
    predicted = {
        line["question_id"]: line["answers"]
        for line in map(json.loads, (answering / "predictions/val-best.jsonl").read_text().splitlines())
    }
    rows = [json.loads(line) for line in (prepared / "rooms/questions.jsonl").read_text().splitlines()]
    for row in [row for row in rows if row["scene_id"] == SCENE][::3]:
        text = " ".join((*row["situations"][:1], row["question"]))
        said = ask(opened, find(opened, SCENE), [text])
        best = np.argsort(-said.logits[0], kind="stable")[:10]
        assert [opened.answers.texts[i] for i in best] == predicted[row["question_id"]]


def test_five_answers_and_the_views_are_printed_and_shown(
    answering: Path, asked: Any, tmp_path: Path
) -> None:
    code, said, _ = asked(answering, "is there a <table> ?")
    assert code == 0
    assert "the best on val" in said
    assert said.count("probability") == 10, "two questions"
    chances = [float(each) for each in re.findall(r"probability ([\d.]+)", said)]
    assert chances[:5] == sorted(chances[:5], reverse=True)
    shown = [float(each) for each in re.findall(r"attention ([\d.]+)", said)]
    data = page_data(tmp_path / "asked.html")
    assert [ranking["text"].split(" ?")[0] for ranking in data["rankings"]] == [
        "how many chairs are there", "is there a <table>",
    ]  # fmt: skip
    assert sorted(data["rankings"][0]["values"], reverse=True) == pytest.approx(shown[:2], abs=1e-3)
    assert sum(data["rankings"][0]["values"]) == pytest.approx(1)
    assert data["rankedBy"] == "attention"
    assert "is there a &lt;table&gt;" in (tmp_path / "asked.html").read_text(encoding="utf-8")


def test_a_view_s_worth_is_the_change_without_it(answering: Path) -> None:
    run = open_run(str(answering), StorageOptions())
    features = features_of(run, None)
    opened = load(run, features)
    views = np.random.default_rng(0).normal(size=(4, features.shape.embedding)).astype(np.float16)
    valid = np.array([1, 0, 1, 1], np.uint8)
    said = ask(opened, scene(views, valid), [TEXT])
    best = said.logits[0].argmax()
    for view in (0, 2, 3):
        left = valid.copy()
        left[view] = 0
        other = ask(opened, scene(views, left), [TEXT]).logits[0, best]
        assert said.without[0, view] == pytest.approx(other - said.logits[0, best], abs=1e-5)
    assert said.attention[0, 1] == said.without[0, 1] == 0
    assert said.attention.sum() == pytest.approx(1)
    alone = ask(opened, scene(views, np.array([0, 1, 0, 0])), [TEXT])
    assert np.isnan(alone.without[0, 1])


def test_a_situation_is_read_before_the_question(answering: Path, asked: Any) -> None:
    words = ("--situation", "I stand in the middle of the room .")
    assert asked(answering, *words)[1] != asked(answering)[1]


def test_a_question_that_is_too_long_is_cut_and_counted(answering: Path, asked: Any) -> None:
    run = open_run(str(answering), StorageOptions())
    limit = load(run, features_of(run, None)).words.limit
    code, said, _ = asked(answering, text=" ".join(["chairs"] * (limit + 5)))
    assert code == 0
    assert f"1 of 1 questions are longer than the {limit} tokens" in said
    assert "longer" not in asked(answering)[1]


def test_words_that_the_tower_does_not_know_are_counted(answering: Path, asked: Any) -> None:
    assert "2 words of the question unknown" in asked(answering, text="how many zebras are quacking ?")[1]
    assert "unknown" not in asked(answering)[1]


def test_the_step_can_be_chosen(answering: Path, asked: Any) -> None:
    assert "step 4, as asked" in asked(answering, "--step", "4")[1]
    code, _, error = asked(answering, "--step", "3")
    assert code == 2
    assert "There are: 2, 4" in error


def test_without_results_the_last_checkpoint_answers(run: Path, asked: Any) -> None:
    (run / "results.json").unlink()
    assert "step 4, the last" in asked(run)[1]


def test_without_the_scenes_there_are_answers_and_no_page(
    answering: Path, prepared: Path, asked: Any, tmp_path: Path
) -> None:
    features = moved_features(prepared, tmp_path / "features", data={"uri": "nowhere", "manifest": "0"})
    code, said, _ = asked(answering, "--features", str(features))
    assert code == 0
    assert "no page" in said
    assert not (tmp_path / "asked.html").exists()
    code, said, _ = asked(answering, "--features", str(features), "--data", str(prepared / "rooms"))
    assert code == 0
    assert (tmp_path / "asked.html").exists()
    assert asked(answering, "--data", "nowhere")[0] == 2


def moved_features(prepared: Path, to: Path, **changes: Any) -> Path:
    """A copy of the features whose manifest says something else."""
    shutil.copytree(prepared / "features", to)
    storage = Storage.from_uri(to)
    manifest = manifests.load(storage)
    manifests.commit(storage, Manifest(manifest.shards, manifest.attributes | changes))
    return to


def refused(asked: Any, *arguments: Any, **named: Any) -> str:
    code, _, error = asked(*arguments, **named)
    assert code == 2
    assert len(error.strip().splitlines()) == 1, error
    return str(error)


def test_an_unknown_scene_is_refused_with_its_like(answering: Path, asked: Any, tmp_path: Path) -> None:
    said = refused(asked, answering, scene="room-0-000003")
    assert SCENE in said
    assert "with --features." in said
    assert not (tmp_path / "asked.html").exists()


def test_features_of_another_encoder_are_refused(
    answering: Path, prepared: Path, asked: Any, tmp_path: Path
) -> None:
    encoder = {"digest": "0123", "weights": "trained", "run": "other"}
    features = moved_features(prepared, tmp_path / "features", encoder=encoder)
    assert "0123" in refused(asked, answering, "--features", str(features))
    assert "holds no features" in refused(asked, answering, "--features", str(prepared / "rooms"))


def test_features_that_have_moved_can_be_named(run: Path, prepared: Path, asked: Any, tmp_path: Path) -> None:
    job = (run / "config.yaml").read_text().replace(str(prepared / "features"), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(job)
    assert "--features" in refused(asked, run)
    assert asked(run, "--features", str(prepared / "features"))[0] == 0


def test_a_run_without_a_committed_checkpoint_is_refused(run: Path, asked: Any) -> None:
    for record in run.rglob("COMMIT.json"):
        record.unlink()
    assert "no committed checkpoint" in refused(asked, run)


def test_other_runs_and_folders_are_refused(run: Path, prepared: Path, asked: Any) -> None:
    assert "is no run" in refused(asked, prepared / "rooms")
    assert "is not a folder" in refused(asked, prepared / "nowhere")
    (run / "config.yaml").write_text("kind: pretrain\nname: run\n")
    assert "is a run of `poma pretrain`" in refused(asked, run)


def test_another_vocabulary_or_tower_is_refused(
    run: Path, prepared: Path, asked: Any, tmp_path: Path
) -> None:
    kept = json.loads((run / "vocabulary.json").read_text())
    (run / "vocabulary.json").write_text(json.dumps(kept | {"answers": kept["answers"][::-1]}))
    assert "vocabulary.json is not the list" in refused(asked, run)
    (run / "vocabulary.json").write_text(json.dumps(kept))
    other = shutil.copytree(prepared / "tower", tmp_path / "other")
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + torch.ones(1).numpy().tobytes())
    job = (run / "config.yaml").read_text().replace(str(prepared / "tower"), str(other))
    (run / "config.yaml").write_text(job)
    assert "is not the one that the head was trained with" in refused(asked, run)


def test_a_scene_whose_views_are_others_has_no_page(
    answering: Path, prepared: Path, asked: Any, tmp_path: Path
) -> None:
    """Room 3 of another data set has the id, and other views."""
    job = ingest_job(tmp_path / "rooms", views=3)
    assert main(["ingest", write(tmp_path / "rooms.yaml", job)]) == 0
    assert "other views" in refused(asked, answering, "--data", str(tmp_path / "rooms"))


def test_an_empty_question_is_one_line(answering: Path, asked: Any) -> None:
    assert "empty" in refused(asked, answering, text=" ")


def test_a_control_says_that_it_is_one(prepared: Path, asked: Any, tmp_path: Path) -> None:
    head = {"pool_hidden": 16, "pool_width": 16, "hidden": 32, "inputs": "question"}
    job = heads.finetune_job(prepared, head=head, name="blind", output=str(tmp_path), shuffle_scenes=True)
    assert main(["finetune", write(tmp_path / "qa.yaml", job)]) == 0
    code, said, _ = asked(tmp_path / "blind")
    assert code == 0
    assert "sees no views" in said
    assert "views of other scenes" in said
    assert "attention" not in said
    assert not (tmp_path / "asked.html").exists()


@pytest.mark.parametrize(
    "content", ["", '{"select_on": "val", "spl', "[]", '{"select_on": "val", "splits": [1]}']
)
def test_damaged_results_are_named_with_what_to_do(asked: Any, run: Path, content: str) -> None:
    (run / "results.json").write_text(content)
    said = refused(asked, run)
    assert f"{run}/results.json is damaged" in said
    assert "`poma finetune` again" in said
    assert asked(run, "--step", "4")[0] == 0, "a checkpoint that is named needs no results"


@pytest.mark.parametrize("content", [None, '{"answers": ["a', '{"answers": ["a"], "unknown": "?"}'])
def test_a_vocabulary_that_is_gone_or_damaged_is_named_with_what_to_do(
    asked: Any, run: Path, content: str | None
) -> None:
    kept = run / "vocabulary.json"
    kept.unlink() if content is None else kept.write_text(content)
    said = refused(asked, run)
    assert "vocabulary.json" in said
    assert "`poma finetune` again" in said
