"""`examples/hand_off.py` where there is torch, transformers and the wheel of the model alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import poma3d.auto
from poma3d.auto.language.folder import processor, save_merged, whole
from poma3d.export import Provenance, SceneEncoder
from tests.helpers import tiny
from tests.helpers.docs.recorded import recorded
from tests.helpers.downstream import handed_on, llm
from tests.helpers.scans import room, write_seven_scenes
from tests.helpers.wheel import environment
from tests.helpers.wheel.requirements import ROOT, platform_modules

EXAMPLE = ROOT / "examples" / "hand_off.py"
VIEWS = 4
QUESTION = "how many chairs are there?"
LOOK = """
import json, runpy, sys
from importlib.util import find_spec
import poma3d
sys.argv = {argv}
names = runpy.run_path(sys.argv[0])
print(json.dumps({{
    "features": names["views"].features.tolist(),
    "there": [name for name in {platform} if find_spec(name)],
    "package": poma3d.__file__,
}}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment.make(tmp_path_factory.mktemp("wheel"))


def call(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Isolated (-I): neither this folder nor PYTHONPATH is searched for modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-I", *words]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_example_runs_without_the_platform(python: Path, tmp_path: Path) -> None:
    teacher = tiny.save_teacher(tmp_path / "teacher", tiny.clip_model())
    encoder = SceneEncoder(tiny.tower().build(), Provenance("tiny", teacher_source=str(teacher)))
    poma3d.auto.save(encoder, tmp_path / "encoder")
    write_seven_scenes(tmp_path / "scan", room(views=VIEWS), np.eye(3))
    argv = [str(EXAMPLE), "encoder", "scan", "a red chair", "teacher"]
    done = call(python, "-c", LOOK.format(argv=argv, platform=sorted(platform_modules())), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shapes, best, last = done.stdout.splitlines()
    assert shapes == f"features 1 {VIEWS} {tiny.JOINT} tokens 1 {VIEWS} {tiny.TOKENS} {tiny.WIDTH}"
    found = json.loads(last)
    assert found["there"] == [], "the environment holds the platform's packages"
    assert Path(found["package"]).is_relative_to(python.parents[1])
    own = encoder.from_frames(*recorded(tmp_path / "scan", VIEWS))
    assert found["features"] == own.features.tolist(), "bit for bit"
    ranked = encoder.rank(own, "a red chair").views[0].tolist()
    assert best == f"best views {' '.join(map(str, ranked))}"


@pytest.mark.slow
def test_a_language_model_answers_without_the_platform(python: Path, tmp_path: Path) -> None:
    trained = handed_on.trained(llm.stage(trained=True).eval(), llm.QWEN3)
    save_merged(trained, tmp_path / "answering")
    write_seven_scenes(tmp_path / "scan", room(views=VIEWS), np.eye(3))
    done = call(python, str(EXAMPLE), "answering", "scan", QUESTION, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    inputs = processor(trained)(QUESTION, *recorded(tmp_path / "scan", VIEWS))
    (expected,) = processor(trained).answers(whole(trained).generate(**inputs))
    assert done.stdout.rstrip("\n").split(" ", 1) == ["answer", expected]


@pytest.mark.slow
def test_poma_says_what_it_needs(python: Path, tmp_path: Path) -> None:
    done = call(python, str(python.with_name("poma")), "--help", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'poma3d-platform[platform]'" in done.stderr
