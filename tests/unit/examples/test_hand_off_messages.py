"""`examples/hand_off.py` where something is missing: one line that says what."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import poma3d.auto
from poma3d.export import Provenance, SceneEncoder
from tests.helpers import tiny
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.wheel.requirements import ROOT

EXAMPLE = str(ROOT / "examples" / "hand_off.py")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that does not say where its teacher is, a scan, and one that has lost a pose."""
    folder = tmp_path_factory.mktemp("handed-on")
    poma3d.auto.save(SceneEncoder(tiny.tower().build(), Provenance("tiny")), folder / "encoder")
    for name in ("scan", "torn"):
        write_seven_scenes(folder / name, room(views=2), np.eye(3))
    next((folder / "torn").glob("*.pose.txt")).unlink()
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give the exported model and a scan: python examples/hand_off.py MODEL SCAN"),
        (["encoder"], "give the exported model and a scan"),
        (["scan", "scan"], "scan holds no model: give the output of `poma export --format transformers`"),
        (["someone/a-model", "scan"], "huggingface.co"),  # a name on the hub is asked for there
        (["encoder", "nowhere"], r"nowhere holds no scan: give a folder with \*\.depth\.png"),
        (["encoder", "torn"], "pose.txt not found"),
        (["encoder", "scan", "a red chair"], "name the TEACHER, too"),
        (["encoder", "scan", "a red chair", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_what_is_missing_is_one_line(
    words: list[str], says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, at the import
    monkeypatch.setattr(sys, "argv", [EXAMPLE, *words])
    with pytest.raises(SystemExit, match=says) as caught:
        runpy.run_path(EXAMPLE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["poma3d.auto", "transformers"])
def test_a_package_that_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", [EXAMPLE, "encoder", "scan"])
    with pytest.raises(SystemExit, match=f"{package} is not installed here: install the wheel"):
        runpy.run_path(EXAMPLE)
