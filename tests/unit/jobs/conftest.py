"""Data sets that the tests of the commands share; each test copies what it changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.downstream import heads, llm_jobs
from tests.helpers.tiny_jobs import make_data


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rooms, images and teacher. Leave it as it is."""
    folder = tmp_path_factory.mktemp("made")
    make_data(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` to change."""
    for name in ("rooms", "images", "teacher"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def prepared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What heads need: rooms, teacher, encoder, features, questions and a tower. Leave it as it is."""
    folder = tmp_path_factory.mktemp("heads")
    for name in ("rooms", "teacher"):
        shutil.copytree(made / name, folder / name)
    heads.make_features(folder)
    return folder


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A copy of `prepared` to change."""
    for name in ("rooms", "teacher", "features", "tower", "encoder"):
        shutil.copytree(prepared / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def llm_home(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What language models need: rooms, features with patches, an encoder and a model. Leave it as it is."""
    folder = tmp_path_factory.mktemp("llm")
    llm_jobs.make(prepared, folder)
    return folder


@pytest.fixture(scope="session")
def trained_llm(llm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a language model, `llm`. Leave it as it is."""
    folder = tmp_path_factory.mktemp("trained-llm")
    assert llm_jobs.run(llm_home, folder) == 0
    return folder
