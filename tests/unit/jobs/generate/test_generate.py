"""`poma generate` on tiny rooms: a line for each question, resumed, scored; what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.finetune.llm import conversations
from jobs.finetune.llm.answers import answers, open_run
from jobs.finetune.llm.config import ConversationsConfig, SeenConfig
from jobs.generate import tasks
from jobs.generate.record import RECORD, Record, claim
from plinth.errors import ConfigError, StorageError
from plinth.storage import Storage, StorageOptions
from tests.helpers.tiny_jobs import write

OPTIONS = StorageOptions()


def job_of(home: Path, trained: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "generate",
        "run": str(trained / "llm"),
        "output": str(output / "answers"),
        "asked": {
            "features": [str(home / "patches")],
            "scenes": [str(home / "rooms")],
            "conversations": [{"kind": "rooms", "annotations": [str(home / "rooms/questions.jsonl")]}],
        },
        "max_tokens": 4,
        "batch_size": 16,
        "questions_per_task": 40,
        "workers": 0,
        **changes,
    }


def generate(home: Path, trained: Path, output: Path, **changes: Any) -> int:
    return main(["generate", write(output / "generate.yaml", job_of(home, trained, output, **changes))])


def lines(output: Path) -> list[dict[str, str]]:
    text = (output / "answers/rooms.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_question_gets_the_models_answer_once(
    llm_home: Path, trained_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = tasks.answer_shard

    def answer_shard(work: Any, entry: Any) -> str:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(entry.name)
        return real(work, entry)

    monkeypatch.setattr("jobs.generate.command.answer_shard", answer_shard)
    assert generate(llm_home, trained_llm, tmp_path) == 130  # killed after the first of three shards
    assert not (tmp_path / "answers/rooms.jsonl").exists()
    done.insert(0, "so that nothing stops it")
    done.append("so that nothing stops it")
    assert generate(llm_home, trained_llm, tmp_path) == 0
    assert len(done) == 2 + 3  # the first shard was not answered again
    found = {line["question_id"]: line["answer"] for line in lines(tmp_path)}
    assert len(found) == len(lines(tmp_path)) == 110
    asked = [ConversationsConfig("rooms", [str(llm_home / "rooms/questions.jsonl")])]
    seen = SeenConfig(asked, [str(llm_home / "patches")], [str(llm_home / "rooms")])
    run = open_run(str(trained_llm / "llm"), OPTIONS, seen, "asked")
    said = conversations.read(asked[0], " ", None, OPTIONS, "asked")
    expected = {each.question_id: text for each, text in answers(run, said[:8], 3, 4)}
    assert expected == {name: found[name] for name in expected}
    assert len(set(expected.values())) > 1 or any(expected.values())


def test_what_cannot_be_asked_is_one_line(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(llm_home, trained_llm, tmp_path)
    twice = {**job["asked"], "conversations": job["asked"]["conversations"] * 2}
    bare = {**job["asked"], "features": [str(llm_home / "features")]}
    missing = {**job["asked"], "scenes": []}
    for changes, says in (
        ({"asked": twice}, "names rooms twice"),
        ({"asked": bare}, "with patches=true"),
        ({"asked": missing}, "asked.scenes is empty, and scene.tokens is voxels"),
        ({"run": str(llm_home / "rooms")}, "is no run: it has no config.yaml"),
        ({"step": 99}, "99"),
    ):
        capsys.readouterr()
        assert generate(llm_home, trained_llm, tmp_path, **changes) == 2
        error = capsys.readouterr().err
        assert says in error
        assert len(error.strip().splitlines()) == 1


def test_answers_of_other_jobs_are_not_replaced(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (llm_home / "rooms/questions.jsonl").read_text().splitlines()[:4]
    few, fewer = tmp_path / "few.jsonl", tmp_path / "fewer.jsonl"
    few.write_text("\n".join(rows) + "\n")
    fewer.write_text("\n".join(rows[1:]) + "\n")

    def asked(annotations: Path) -> dict[str, Any]:
        of = job_of(llm_home, trained_llm, tmp_path)["asked"]
        return {**of, "conversations": [{"kind": "rooms", "annotations": [str(annotations)]}]}

    first = {"asked": asked(few), "max_tokens": 2}
    assert generate(llm_home, trained_llm, tmp_path, **first) == 0
    kept = (tmp_path / "answers/rooms.jsonl").read_bytes()
    assert len(lines(tmp_path)) == 4
    shutil.copytree(trained_llm / "llm", tmp_path / "llm")
    for changes, says in (
        ({**first, "max_tokens": 3}, "holds the answers of max_tokens 2, and this is max_tokens 3."),
        ({**first, "run": str(tmp_path / "llm")}, f"and this is run {tmp_path / 'llm'}."),
        ({**first, "step": 2}, "holds the answers of step 4, and this is step 2."),
        ({**first, "asked": asked(fewer)}, "holds the answers to other questions of rooms."),
    ):
        capsys.readouterr()
        assert generate(llm_home, trained_llm, tmp_path, **changes) == 2, says
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line
        assert (tmp_path / "answers/rooms.jsonl").read_bytes() == kept
    (tmp_path / "answers/rooms.jsonl").unlink()
    again = {**first, "questions_per_task": 2, "batch_size": 2}
    assert generate(llm_home, trained_llm, tmp_path, **again) == 0, "what decides no answer may change"
    assert (tmp_path / "answers/rooms.jsonl").read_bytes() == kept
    (tmp_path / "answers/answers/record.json").unlink()
    capsys.readouterr()
    assert generate(llm_home, trained_llm, tmp_path, **first) == 2
    assert "has a rooms.jsonl, and no answers/record.json says whose" in capsys.readouterr().err


def test_a_kind_may_be_added_and_a_run_that_was_trained_again_may_not(tmp_path: Path) -> None:
    output, record = Storage.from_uri(tmp_path), Record("run", 4, 8, "model", {"rooms": "a"})
    claim(output, record)
    claim(output, replace(record, questions={"sqa3d": "b"}))
    claim(output, record)
    with pytest.raises(ConfigError, match="other questions of sqa3d"):
        claim(output, replace(record, questions={"sqa3d": "c"}))
    with pytest.raises(ConfigError, match="run before it was trained again"):
        claim(output, replace(record, model="other"))
    output.write(RECORD, b'{"run": 3}')
    with pytest.raises(StorageError, match=r"record\.json is damaged"):
        claim(output, record)
