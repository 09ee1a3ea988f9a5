"""`poma ask` of a language model on tiny rooms: its answer, the page of the scene, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from jobs.ask import language_model
from jobs.ask.pose import agent_at
from jobs.cli import main
from jobs.finetune.llm import rows
from jobs.finetune.llm.rows import Tokenised
from jobs.finetune.scenes import open_scenes
from plinth.data.config import ShardOptions
from plinth.storage import Storage, StorageOptions
from poma3d.annotations.poses import upright_agent
from poma3d.llm.conversations import ConversationRow, shape_of
from tests.helpers.tiny_jobs import ingest_job, write


def test_it_answers_and_shows_the_scene(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = open_scenes([str(llm_home / "rooms")], StorageOptions()).scene_ids()[2]
    page = tmp_path / "asked.html"
    words = ["ask", str(trained_llm / "llm"), scene, "how many <b>chairs</b>?", "what is left?"]
    assert main([*words, "--situation", "I stand at the door.", "--output", str(page)]) == 0
    said = capsys.readouterr().out
    assert "checkpoint of step 4" in said
    assert re.search(r"“how many <b>chairs</b>\?”\n  .*\n“what is left\?”\n  .*\n", said)
    assert scene in page.read_text()
    assert "<b>chairs</b>" not in page.read_text()
    assert main(["ask", words[1], "nowhere", "what?"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has no scene 'nowhere'" in line
    assert "with --features." in line
    assert main([*words[:4], "--features", str(llm_home / "features")]) == 2
    assert "with patches=true" in capsys.readouterr().err


def test_an_empty_answer_is_said_to_be_one(
    llm_home: Path,
    trained_llm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_model, "answers", lambda _, asked, *others: [(asked[0], " ")])
    scene = open_scenes([str(llm_home / "rooms")], StorageOptions()).scene_ids()[0]
    page = tmp_path / "asked.html"
    assert main(["ask", str(trained_llm / "llm"), scene, "what?", "--output", str(page)]) == 0
    assert "“what?”\n  (empty answer)\n" in capsys.readouterr().out
    assert "what? → (empty answer)" in page.read_text()


def test_a_pose_is_refused_before_the_model_is_loaded(
    llm_home: Path, trained_llm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "open_run", lambda *_: pytest.fail("loaded"))
    scene = open_scenes([str(llm_home / "rooms")], StorageOptions()).scene_ids()[0]
    words = ["ask", str(trained_llm / "llm"), scene, "what?", "--pose"]
    assert main([*words, "1", "inf", "0"]) == 2
    said = capsys.readouterr()
    assert "not finite" in said.err
    assert not said.out


def test_places_are_needed_of_the_scene_that_is_asked_about(
    llm_home: Path, trained_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_, last = open_scenes([str(llm_home / "rooms")], StorageOptions()).scene_ids()
    assert main(["ingest", write(tmp_path / "ingest.yaml", ingest_job(tmp_path / "part", rooms=4))]) == 0
    words = ["what?", "--data", str(tmp_path / "part"), "--output", str(tmp_path / "asked.html")]
    assert main(["ask", str(trained_llm / "llm"), first, *words]) == 0
    capsys.readouterr()
    assert main(["ask", str(trained_llm / "llm"), last, *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"has no scene {last}, whose features are in" in line


def test_whoever_asks_stands_as_high_as_those_of_the_conversations(tmp_path: Path) -> None:
    run = Storage.from_uri(tmp_path)
    asked = [
        ConversationRow(
            f"q{i}", f"scene {i}", ((1,),), 0, ((2,),), agent=upright_agent(np.array([1, 2, z]), 1)
        )
        for i, z in enumerate((0.5, 1.5, 2.5))
    ]
    tokenised = Tokenised("sqa3d", 1.0, asked, {}, [])
    numbers = {row.scene_id: i for i, row in enumerate(asked)}
    rows.write(run, tokenised, shape_of(asked), numbers, {}, None, ShardOptions())
    for scene, z in (("scene 0", 0.5), ("scene 2", 2.5), ("another", 1.5)):
        agent = agent_at([3.0, 4.0, 0.0], run, rows.FOLDER, scene)
        assert agent is not None
        np.testing.assert_allclose(agent[:, 3], [-3, -4, -z], atol=1e-6)
