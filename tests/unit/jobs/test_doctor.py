"""`poma doctor`: finds what is wrong, says why and how to mend it, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import doctor_machine, doctor_storage
from jobs.cli import main
from jobs.doctor_finding import Level
from plinth.storage import StorageOptions
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

pytestmark = pytest.mark.slow
RING = doctor_machine.ring


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("doctor")
    make_data(made)
    return made


@pytest.fixture(autouse=True)
def no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more processes for every test: it has a test of its own."""
    monkeypatch.setattr(doctor_machine, "ring", list)


def examine(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, str]:
    code = main(["doctor", write(folder / "job.yaml", pretrain_job(folder, **changes))])
    return code, capsys.readouterr().out


def test_a_job_that_is_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    code, out = examine(folder, capsys)
    assert code == 0
    for check in ("workers", "machine", "storage", "data", "memory", "packages"):
        assert f"ok    {check}" in out
    left = {path for path in folder.rglob("*") if path.is_file()} - set(before)
    assert left <= {folder / "job.yaml"}


def test_sizes_that_do_not_divide(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = examine(folder, capsys, fit={"workers": {"min": 1, "max": 3}})
    assert code == 0
    assert "fit.workers.max is 3, which does not divide: at most 2 work" in out
    code, out = examine(folder, capsys, fit={"workers": 3})
    assert code == 2
    assert "bad   workers" in out


def test_data_of_another_teacher(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = folder / "images" / "MANIFEST.json"
    text = manifest.read_text()
    changed = json.loads(text)
    changed["attributes"]["teacher"]["revision"] = "another"
    manifest.write_text(json.dumps(changed))
    try:
        code, out = examine(folder, capsys)
    finally:
        manifest.write_text(text)
    assert code == 2
    assert "bad   data" in out
    assert "fix: " in out


def test_storage_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("in the way")
    code, out = examine(folder, capsys, output=str(folder / "file" / "runs"))
    assert code == 2
    assert "bad   storage" in out


def test_credentials_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "AKIAPLANTED")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED")
    named = doctor_storage.credentials(StorageOptions(access_key_env="MY_KEY", secret_key_env="MY_SECRET"))
    assert named == "environment variables MY_KEY and MY_SECRET"
    texts = [doctor_storage.credentials(StorageOptions(profile=profile)) for profile in ("lab", None)]
    assert "lab" in texts[0]
    assert not any("PLANTED" in text for text in (named, *texts))


def test_the_ring_closes() -> None:
    assert [finding.level for finding in RING()] == [Level.ok]
