"""`examples/own_reader.py`, run as its reader would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.common.datasets import open_dataset
from plinth.data import manifest as manifests
from plinth.storage import Storage, StorageOptions

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def poma(*words: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """`poma` in a process of its own, started in `folder`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT), path))}
    command = [sys.executable, "-m", "jobs.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example fills."""
    folder = tmp_path_factory.mktemp("own_reader")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT)))}
    command = [sys.executable, str(EXAMPLES / "own_reader.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 scenes, 4 views each" in done.stdout
    assert "warning" not in done.stdout, "its views agree"
    return folder


def test_the_example_makes_a_data_set_that_names_its_reader(example: Path) -> None:
    dataset = open_dataset(str(example / "rooms"), StorageOptions())
    [sample] = dataset.samples()
    assert (sample.scene_id, sample.source) == ("kitchen", "npz")
    assert sample.scene_captions == ["a room"]
    attributes = dataset.manifest.attributes
    assert attributes["source"] == "own_reader:NpzReader"
    assert attributes["reader"] == {
        "kind": "own_reader:NpzReader",
        "options": {"root": str(example / "scans"), "step": 1},
    }


def test_the_options_are_part_of_the_job(example: Path) -> None:
    job = str(example / "ingest.yaml")
    again = poma("ingest", job, "reader.options.step=1", folder=EXAMPLES)
    assert "already built from this job" in again.stdout, "a default that is spelt out changes nothing"
    other = poma("ingest", job, "reader.options.step=2", folder=EXAMPLES)
    assert other.returncode == 2
    assert "holds a data set that another job built" in other.stderr


def test_an_edited_scan_is_noticed(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(example, folder)
    words = [f"reader.options.root={folder / 'scans'}", f"output={folder / 'again'}"]
    assert poma("ingest", str(folder / "ingest.yaml"), *words, folder=EXAMPLES).returncode == 0
    (folder / "scans" / "kitchen" / "000.npz").unlink()
    done = poma("ingest", str(folder / "ingest.yaml"), *words, folder=EXAMPLES)
    assert done.returncode == 2
    assert "kitchen" in done.stderr


def test_config_checks_and_explains_the_options(example: Path) -> None:
    job = str(example / "ingest.yaml")
    shown = poma("config", job, folder=EXAMPLES)
    assert yaml.safe_load(shown.stdout)["reader"]["options"] == {"root": str(example / "scans"), "step": 1}
    keys = poma("config", job, "--help-keys", folder=EXAMPLES)
    assert "reader.options.step: int = 1\n    Read every n-th frame." in keys.stdout
    wrong = poma("config", job, "reader.options.stepp=2", folder=EXAMPLES)
    assert wrong.returncode == 2
    assert "unknown key reader.options.stepp. Did you mean reader.options.step?" in wrong.stderr
    elsewhere = poma("ingest", job, folder=example)
    assert elsewhere.returncode == 2
    assert "there is no module own_reader. Install it, put its folder on PYTHONPATH" in elsewhere.stderr


@pytest.mark.slow
@pytest.mark.parametrize("found_by", ["folder", "PYTHONPATH"])
def test_ray_workers_find_the_reader(found_by: str, example: Path, tmp_path: Path) -> None:
    words = ["ingest", str(example / "ingest.yaml"), "workers=1", f"output={tmp_path / 'rooms'}"]
    if found_by == "folder":
        done = poma(*words, folder=EXAMPLES)
    else:
        done = poma(*words, folder=tmp_path, path=str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    here, there = (manifests.load(Storage.from_uri(f / "rooms")) for f in (example, tmp_path))
    assert there.shards == here.shards
