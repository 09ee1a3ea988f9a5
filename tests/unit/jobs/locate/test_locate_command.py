"""`poma locate`: views ranked by a text, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.common import models
from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders
from jobs.pretrain.config import PretrainJob
from plinth.storage import StorageOptions
from poma3d import export
from poma3d.export import Provenance
from poma3d.pretrained.config import TeacherConfig

TEXT = "a chair & a <table>"


@pytest.fixture
def encoder(folder: Path) -> Path:
    """An untrained encoder's export that names its teacher."""
    teacher = TeacherConfig(source=str(folder / "teacher"))
    record = models.record(teacher, StorageOptions())
    made = encoders.untrained(
        PretrainJob(teacher=teacher), open_dataset(str(folder / "rooms"), StorageOptions()).shape
    )
    made.provenance = Provenance(teacher=record.name, teacher_revision=record.revision)
    export.save(made, folder / "encoder")
    return folder / "encoder"


def locate(folder: Path, encoder: Path, *more: str, text: str = TEXT) -> int:
    words = ["locate", str(folder / "rooms"), "room-0-0000003", text, "--encoder", str(encoder)]
    return main([*words, "--output", str(folder / "out.html"), *more])


def test_cosines_are_those_of_the_encoder_and_the_teacher(
    folder: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert locate(folder, encoder, "--teacher", str(folder / "teacher")) == 0
    text = (folder / "out.html").read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)
    assert found is not None
    ranking = json.loads(found[1])["rankings"][0]
    sample = next(
        s
        for s in open_dataset(str(folder / "rooms"), StorageOptions()).samples()
        if s.scene_id == "room-0-0000003"
    )
    loaded = export.load(encoder)
    views = loaded.from_depth(
        sample.depth[None], sample.depth_scale, sample.intrinsics[None], sample.pose[None]
    ).features[0]
    teacher = models.open_teacher(TeacherConfig(source=str(folder / "teacher")), StorageOptions())
    said = teacher.encode_texts([TEXT])[0].astype(np.float64)
    expected = views.numpy().astype(np.float64) @ (said / np.linalg.norm(said))
    np.testing.assert_allclose(ranking["values"], expected, atol=1e-5)
    assert ranking["text"] == TEXT
    first = f"view {int(np.argmax(expected))}"
    assert first in capsys.readouterr().out.splitlines()[1], "the best first"


def test_an_export_needs_its_teacher(folder: Path, encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate(folder, encoder) == 2
    assert "--teacher" in capsys.readouterr().err


def test_an_export_that_names_its_teacher_needs_no_other_word(folder: Path, encoder: Path) -> None:
    made = export.load(encoder)
    made.provenance = replace(made.provenance, teacher_source=str(folder / "teacher"))
    export.save(made, encoder)
    assert locate(folder, encoder) == 0


def test_an_encoder_of_another_teacher_is_refused(
    folder: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export.load(encoder)
    made.provenance = replace(made.provenance, teacher="another", teacher_revision="folder-0")
    export.save(made, encoder)
    assert locate(folder, encoder, "--teacher", str(folder / "teacher")) == 2
    said = capsys.readouterr().err
    assert "trained with the teacher another" in said
    assert not (folder / "out.html").exists()


def test_a_text_that_is_too_long_is_cut_and_counted(
    folder: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = " ".join(["chair"] * 60)
    assert locate(folder, encoder, "--teacher", str(folder / "teacher"), text=long) == 0
    assert "1 of 1 texts are longer" in capsys.readouterr().err


def test_an_empty_text_is_one_line(folder: Path, encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locate(folder, encoder, "--teacher", str(folder / "teacher"), text="  ") == 2
    assert "empty" in capsys.readouterr().err


def test_no_run_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["locate", str(folder / "rooms"), "room-0-0000003", TEXT, "--run", str(folder / "rooms")]) == 2
    )
    assert "is neither a run" in capsys.readouterr().err
