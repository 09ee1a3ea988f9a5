"""`poma generate` on tiny rooms: a line for each question, resumed, scored; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.finetune.llm import conversations
from jobs.finetune.llm.answers import answers, open_run
from jobs.finetune.llm.config import ConversationsConfig, SeenConfig
from jobs.generate import tasks
from plinth.storage import StorageOptions
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
