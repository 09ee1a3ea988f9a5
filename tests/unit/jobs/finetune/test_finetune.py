"""`poma finetune` on tiny rooms: resume, predictions, the protocol by name, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.cli import main
from jobs.finetune import command
from jobs.finetune.build import build_stage
from jobs.finetune.config import FinetuneJob
from jobs.finetune.evaluate import hits, load_head, rank
from jobs.finetune.resolve import resolve
from jobs.jobfile import load
from plinth.checkpoint import save_load
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, write_shard
from plinth.engine.stage import Stage
from plinth.storage import Storage
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.stages import MainStage, WarmupStage
from tests.helpers.annotations.layouts import sqa3d_answer, sqa3d_question, write_sqa3d
from tests.helpers.downstream import heads
from tests.helpers.tiny_jobs import write


def run(home: Path, *words: str, **changes: Any) -> int:
    return main(["finetune", write(home / "qa.yaml", heads.finetune_job(home, **changes)), *words])


def job_of(home: Path, *words: str, **changes: Any) -> FinetuneJob:
    file = write(home / "qa.yaml", heads.finetune_job(home, **changes))
    return load(FinetuneJob, Path(file), words)


def weights(home: Path, name: str = "qa") -> dict[str, torch.Tensor]:
    storage = Storage.from_uri(home / "runs" / name / "heads" / "checkpoints")
    return save_load.read_full(storage, home / "scratch")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_ends_as_a_straight_one(home: Path) -> None:
    assert run(home, name="straight") == 0
    assert run(home, "heads.steps=2", name="parts") == 0
    assert run(home, "--accept-changes", name="parts") == 0
    straight, parts = weights(home, "straight"), weights(home, "parts")
    # The cosine of two steps is another than that of four, so only the data order and the count must agree.
    assert straight.keys() == parts.keys()
    digests = [
        [line["digest"] for line in lines(home / "runs" / name / "heads" / "metrics.jsonl")]
        for name in ("straight", "parts")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 4


@pytest.mark.parametrize("stage", [WarmupStage, MainStage, QuestionStage])
def test_a_stage_has_all_that_the_engine_asks_for(stage: type) -> None:
    wanted = {name for name in (*vars(Stage), *Stage.__annotations__) if not name.startswith("_")}
    assert {"forward", "prepare", "log_details"} <= wanted
    assert not {name for name in wanted if not hasattr(stage, name)}


def test_predictions_and_results_agree_with_the_head(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home) == 0
    said = capsys.readouterr().out
    assert "chosen on val" in said
    assert "unknown_answers 'wrong'" in said
    folder = home / "runs/qa"
    questions = {row["question_id"]: row for row in lines(home / "rooms/questions.jsonl")}
    found = lines(folder / "predictions/val-last.jsonl")
    assert {row["question_id"] for row in found} == set(questions)
    right = [row["answers"][0] in questions[row["question_id"]]["answers"] for row in found]
    results = json.loads((folder / "results.json").read_text())
    measured = results["splits"]["val"]["last"]["figures"]
    assert measured["EM@1"]["value"] == pytest.approx(np.mean(right))
    ten = [bool(set(r["answers"]) & set(questions[r["question_id"]]["answers"])) for r in found]
    assert measured["EM@10"]["value"] == pytest.approx(np.mean(ten))
    best = max(results["selection"].values())
    assert results["splits"]["val"]["best"]["figures"]["EM@1"]["value"] == pytest.approx(best)
    assert all(len(set(row["answers"])) == 10 for row in found)


def test_k_above_the_number_of_classes_is_all_of_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = home / "list.json"
    listed.write_text(json.dumps(["yes", "no", "one"]))
    assert run(home, qa={"task": "rooms", "vocabulary": str(listed), "best": [1, 10, 50]}) == 0
    assert "qa.best: EM@10, EM@50 is EM@3: there are 3 answers" in capsys.readouterr().out
    assert {len(row["answers"]) for row in lines(home / "runs/qa/predictions/val-last.jsonl")} == {3}
    measured = json.loads((home / "runs/qa/results.json").read_text())["splits"]["val"]["last"]["figures"]
    assert measured["EM@10"] == measured["EM@50"]
    assert measured["EM@50"]["value"] < 1  # answers outside the list stay wrong


def test_the_impossible_class_is_never_predicted(home: Path) -> None:
    listed = home / "list.json"
    listed.write_text(json.dumps(["yes", "no"]))
    job = job_of(home, qa={"task": "rooms", "vocabulary": str(listed), "unknown_answers": "impossible"})
    resolved = resolve(job)
    shape = QuestionShape(**resolved.splits["val"].source.manifest.attributes["shape"])
    head = build_stage(job, resolved.answers.classes, shape).eval()
    assert head.answers == 3
    head.head.fc2.bias.data[2] = 1e6
    ranked = rank(head, resolved.splits["val"], resolved.answers, 16, 10)
    assert ranked.classes.shape[1] == 2
    assert ranked.classes.max() == 1
    assert resolved.splits["val"].counts["unknown_answer"] > 0
    assert hits(ranked, resolved.splits["val"], resolved.answers, 2).mean() < 1


def test_long_texts_are_cut_and_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "text.max_tokens=9") == 0
    said = capsys.readouterr().out
    questions = lines(home / "rooms/questions.jsonl")
    longer = sum(len(row["question"].replace("?", " ?").split()) + 2 + 12 * bool(row["situations"]) > 9
                 for row in questions)  # fmt: skip
    assert longer > 0
    assert f"train: {longer} texts are longer than 9 tokens and were cut" in said
    results = json.loads((home / "runs/qa/results.json").read_text())
    assert results["splits"]["val"]["counts"]["cut_texts"] == longer


def test_questions_are_made_once(home: Path) -> None:
    job = job_of(home)
    first = resolve(job)
    before = {path: path.stat().st_mtime_ns for path in (home / "runs").rglob("*.parquet")}
    again = resolve(job)
    assert first.stage.plan.fingerprint == again.stage.plan.fingerprint
    assert {path: path.stat().st_mtime_ns for path in (home / "runs").rglob("*.parquet")} == before


def test_shuffled_scenes_give_every_question_other_views(home: Path) -> None:
    plain, shuffled = resolve(job_of(home)), resolve(job_of(home, shuffle_scenes=True, name="other"))

    def views(split: Any) -> dict[str, bytes]:
        reader, source = RowGroupReader(split.source.storage), split.source
        tables = [reader.read_shard(shard, ["sample_id", "views"]) for shard in source.manifest.shards]
        return {
            k: v for t in tables for k, v in zip(*(t[c].to_pylist() for c in t.schema.names), strict=True)
        }

    a, b = views(plain.splits["train"]), views(shuffled.splits["train"])
    assert a.keys() == b.keys()
    assert all(a[key] != b[key] for key in a)
    assert set(a.values()) == set(b.values())


def test_the_teacher_s_own_text_tower_reads_questions(home: Path) -> None:
    assert run(home, text={"source": str(home / "teacher")}) == 0
    assert run(home, name="frozen", text={"source": str(home / "teacher"), "train": False}) == 0


def refused(home: Path, capsys: pytest.CaptureFixture[str], *words: str, **changes: Any) -> str:
    capsys.readouterr()
    assert run(home, *words, **changes) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    return error


def test_another_vocabulary_than_the_head_was_trained_with_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home) == 0
    listed = home / "list.json"
    listed.write_text(json.dumps(["yes", "no", "one"]))
    qa = {"task": "rooms", "question_types": "given", "vocabulary": str(listed)}
    assert "qa.vocabulary (its content) was" in refused(home, capsys, "heads.steps=6", qa=qa)


def test_features_of_another_encoder_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage.from_uri(home / "features")
    manifest = manifests.load(storage)
    encoder = manifest.attributes["encoder"] | {"digest": "0123"}
    other = Storage.from_uri(home / "others")
    for path in (home / "features" / "shards").iterdir():
        other.write(f"shards/{path.name}", path.read_bytes())
    manifests.commit(other, Manifest(manifest.shards, manifest.attributes | {"encoder": encoder}))
    split = {"annotations": [str(home / "rooms/questions.jsonl")], "features": [other.uri]}
    assert "0123" in refused(home, capsys, val=split)
    assert run(home) == 0
    assert "train.features (their encoder) was" in refused(
        home, capsys, "heads.steps=6", train=split, val=split
    )


def test_an_encoder_of_another_teacher_is_refused_for_the_teacher_s_tower(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = {"kind": "teacher", "source": str(home / "teacher")}
    assert "was trained with" in refused(home, capsys, text=text)  # this export does not say of which


def test_a_scene_without_views_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage.from_uri(home / "features")
    manifest = manifests.load(storage)
    table = RowGroupReader(storage).read_shard(manifest.shards[0])
    at = table.schema.get_field_index("view_valid")
    field = table.schema.field(at)
    none = [bytes(field.type.byte_width), *table["view_valid"].to_pylist()[1:]]
    table = table.set_column(at, field, pa.array(none, field.type))
    shards = [write_shard(storage, "none", table), *manifest.shards[1:]]
    manifests.commit(storage, Manifest(shards, manifest.attributes))
    assert "has no views" in refused(home, capsys)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"qa": {"task": "rooms", "select_on": "test"}}, "no such split"),
        ({"qa": {"task": "rooms", "select_on": "train"}}, "qa.select_on"),
        ({"qa": {"task": "rooms", "unknown_answers": "class_u"}}, "no answer 'u'"),
        ({"qa": {"task": "rooms", "unknown_answers": "none"}}, "qa.unknown_answers"),
        ({"qa": {"task": "chess"}}, "qa.task"),
        ({"qa": {"task": "rooms", "vocabulary": "nowhere.json"}}, "does not exist"),
        ({"train": {"annotations": [], "features": ["x"]}}, "train.annotations is empty"),
        ({"train": {"annotations": ["x"], "features": ["nowhere"]}}, "train.features: "),
        ({"fit": {"workers": 1, "gpus_per_worker": 1}}, "fit.gpus_per_worker is 1"),
        ({"text": {"source": ""}}, "text.source is empty"),
        ({"text": {"source": "rooms"}}, "text.source"),
        ({"head": {"dropout": 1.0}}, "head.dropout"),
    ],
)
def test_mistakes_are_one_line(
    home: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(home, capsys, **changes)
    assert not (home / "runs/qa/config.yaml").exists()


def test_questions_about_other_scenes_are_refused_and_some_are_counted(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "rooms/questions.jsonl"
    rows = lines(file)
    for row in rows[:5]:
        row["scene_id"] = "scene0000_00"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(home) == 0
    assert "5 questions are about 1 scenes without features: scene0000_00" in capsys.readouterr().out
    for row in rows:
        row["scene_id"] = "scene0000_00"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "scene0000_00" in refused(home, capsys, name="none")


def test_rows_without_an_answer_are_counted_and_not_scored(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / "rooms/questions.jsonl"
    rows = lines(file)
    asked = [{k: row[k] for k in ("scene_id", "question_id", "question")} for row in rows]
    known = [row | {"answers": rows[i]["answers"]} for i, row in enumerate(asked)]
    for name, content in (("train", known), ("val", known[:-3] + asked[-3:])):
        (home / f"{name}.json").write_text(json.dumps(content))
    splits = {
        name: {"annotations": [str(home / f"{name}.json")], "features": [str(home / "features")]}
        for name in ("train", "val")
    }
    assert run(home, qa={"task": "scanqa", "question_types": "scanqa"}, **splits) == 0
    assert "val: 3 questions have no answer at all" in capsys.readouterr().out
    found = lines(home / "runs/qa/predictions/val-last.jsonl")
    assert len(found) == len(rows)
    right = {row["question_id"]: row["answers"] for row in known[:-3]}
    scored = [row["answers"][0] in right[row["question_id"]] for row in found if row["question_id"] in right]
    measured = json.loads((home / "runs/qa/results.json").read_text())["splits"]["val"]
    assert measured["counts"]["without_answer"] == 3
    assert measured["last"]["figures"]["EM@1"]["value"] == pytest.approx(np.mean(scored))


def test_an_answer_file_of_another_split_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_sqa3d(home, [sqa3d_question(0)], [sqa3d_answer(5)])
    split = {"annotations": [str(file) for file in files], "features": [str(home / "features")]}
    said = refused(home, capsys, qa={"task": "sqa3d"}, train=split, val=split)
    assert f"train.annotations: {files[1]}: " in said
    assert "of another split or data set" in said


def test_the_same_question_twice_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(home / "rooms/questions.jsonl")
    split = {"annotations": [file, file], "features": [str(home / "features")]}
    assert "two questions of the id" in refused(home, capsys, train=split)


def test_run_page_shows_the_heads(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home) == 0
    assert "heads" in (home / "runs/qa/index.html").read_text()
    assert main(["runs", "show", str(home / "runs/qa")]) == 0
    assert "finished" in capsys.readouterr().out


def test_load_head_takes_the_weights_of_a_step(home: Path) -> None:
    job = job_of(home)
    assert command.run_job(job) == 0
    resolved = resolve(job)
    shape = QuestionShape(**resolved.splits["train"].source.manifest.attributes["shape"])
    head = build_stage(job, resolved.answers.classes, shape)
    load_head(head, resolved.stage.checkpoints, 4)
    expected = weights(home)
    assert all(torch.equal(p, expected[name]) for name, p in head.state_dict().items())


def test_sqa3d_s_files_train_a_head_that_poma_score_scores_alike(home: Path) -> None:
    """The published layout, with ids beyond int32, and an answer that the dictionary lacks."""
    rows = [row for row in lines(home / "rooms/questions.jsonl") if row["situations"]]
    asked, answered = [], []
    for number, row in enumerate(rows):
        key = {"scene_id": row["scene_id"], "question_id": 220602000000 + number}
        asked.append(
            {**key, "situation": row["situations"][0], "alternative_situation": ["I stand."] * (number % 3),
             "question": row["question"]}
        )  # fmt: skip
        answers = [{"answer": row["answers"][0], "answer_confidence": "yes", "answer_id": 1}]
        answered.append({
            **key, "answers": answers, "answer_type": "other", "question_type": "N/A",
            "rotation": {"_x": 0, "_y": 0, "_z": 0.0, "_w": 1.0}, "position": {"x": 0.0, "y": 0.0, "z": 0},
        })  # fmt: skip
    info = {"info": {}, "license": {}, "data_type": "x", "data_subtype": "x"}
    questions, annotations = (
        home / f"v1_balanced_{name}_val_scannetv2.json" for name in ("questions", "sqa_annotations")
    )
    questions.write_text(json.dumps({**info, "task_type": "x", "questions": asked}))
    annotations.write_text(json.dumps({**info, "annotations": answered}))
    known = sorted({row["answers"][0] for row in rows} - {"left"} | {"u"})
    dictionary = home / "answer_dict.json"
    numbered = {answer: i for i, answer in enumerate(reversed(known))}
    dictionary.write_text(json.dumps([numbered, {str(i): answer for answer, i in numbered.items()}]))
    split = {"annotations": [str(questions), str(annotations)], "features": [str(home / "features")]}
    qa = {"task": "sqa3d", "unknown_answers": "class_u", "vocabulary": str(dictionary)}
    assert run(home, qa=qa, train=split, val=split) == 0
    predictions, scored = home / "runs/qa/predictions/val-last.jsonl", home / "score.json"
    words = ["score", "sqa3d", "--annotations", *split["annotations"], "--predictions", str(predictions)]
    words += ["--vocabulary", str(dictionary), "--unknown-answers", "class_u", "--json", str(scored)]
    assert main(words) == 0
    score = json.loads(scored.read_text())
    measured = json.loads((home / "runs/qa/results.json").read_text())["splits"]["val"]
    assert score["missing"] == 0
    assert score["rows"] == measured["counts"]["rows"] == len(rows)
    assert score["figures"]["raw"] == pytest.approx(100 * measured["last"]["figures"]["EM@1"]["value"])
    # It is called em9 where there are nine classes.
    value = next(value for name, value in score["figures"].items() if name.startswith("em"))
    assert value == pytest.approx(100 * measured["last"]["figures"]["EM@10"]["value"])
    assert measured["counts"]["unknown_answer"] == sum(row["answers"][0] == "left" for row in rows)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("heads.warmup_steps=9", "heads: warmup_steps 9 is not less than the stage's 4 steps"),
        ("heads.micro_batch_size=3", "heads: global_batch_size 8 is not a multiple of micro_batch_size 3"),
        ("heads.epochs=2", "heads.epochs is 2.0 and heads.steps is 4"),
    ],
)
def test_lengths_and_sizes_are_refused_before_anything_is_read(
    home: Path, word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, word) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out, "no question was read"
    assert not (home / "runs").exists()


@pytest.mark.parametrize(("words", "rate"), [((), "optim.lr"), (("heads.lr=0.1",), "heads.lr")])
def test_a_warm_up_that_is_too_long_names_the_rate_where_it_is_said(
    home: Path, words: tuple[str, ...], rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "heads.warmup_steps=9", *words) == 2
    assert f"would never reach {rate}: lower heads.warmup_steps" in capsys.readouterr().err
