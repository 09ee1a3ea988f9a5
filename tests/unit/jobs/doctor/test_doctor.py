"""`poma doctor`: finds what is wrong, says why and how to mend it, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.doctor import all_reduce, cluster_file
from jobs.doctor import storage as doctor_storage
from jobs.doctor.finding import Level
from plinth.storage import StorageOptions
from tests.helpers.tiny_jobs import make_data, pretrain_job, write

pytestmark = pytest.mark.slow
RING = all_reduce.local_ring
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("doctor")
    make_data(made)
    return made


@pytest.fixture(autouse=True)
def no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more processes for every test: it has tests of its own."""
    monkeypatch.setattr(all_reduce, "local_ring", lambda workers, gpus: [])


def examine(
    folder: Path, capsys: pytest.CaptureFixture[str], *options: str, **changes: Any
) -> tuple[int, str]:
    code = main(["doctor", write(folder / "job.yaml", pretrain_job(folder, **changes)), *options])
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
    assert "of 1 to 3, [3] would not and are never chosen" in out
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
    assert out.count("fix: ") == 1, "one mistake is said once, whatever it stands in the way of"
    assert "bad   " in out


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


def test_gpus_that_are_not_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = examine(folder, capsys, fit={"workers": 1, "gpus_per_worker": 1})
    assert code == 2
    assert "fit.gpus_per_worker is 1, and this machine has 0 GPUs" in out


def test_what_a_cluster_file_offers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aws = ["--cluster", str(ROOT / "clusters/aws-h100.yaml")]
    code, out = examine(folder, capsys, *aws)
    assert code == 0
    for said in (
        "aws-h100.yaml has nodes of 8 GPUs, and fit.gpus_per_worker is 0",
        "aws-h100.yaml has data nodes, and main reads on any node",
        "Set main.data.ray_label=poma-role=data.",
        "Set fit.start_timeout_s=300 or more.",
    ):
        assert said in out
    with_gpus = ["fit.gpus_per_worker=1", "fit.start_timeout_s=600", "main.data.ray_label=poma-role=reads"]
    code, out = examine(folder, capsys, *with_gpus, "warmup.data.ray_label=poma-role=data", *aws)
    assert code == 2
    assert [line.split(maxsplit=2)[:2] for line in out.splitlines() if line.startswith(("warn", "bad"))] == [
        ["bad", "gpus"]
    ]
    assert "main.data.ray_label is poma-role=reads, and no node type of aws-h100.yaml has it" in out


def test_labels_of_own_machines_are_read_from_their_commands() -> None:
    assert cluster_file.labels(ROOT / "clusters/onprem.yaml") == {
        ("poma-role", "data"), ("poma-role", "train"),
    }  # fmt: skip
    assert ("poma-role", "data") in cluster_file.labels(ROOT / "clusters/gcp-a3.yaml")


def test_the_ring_closes() -> None:
    (finding,) = RING(2, 0)
    assert finding.level is Level.ok
    assert "2 processes of this machine sum 4 MiB over gloo" in finding.what


def test_a_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    took: dict[int, float | str] = {0: "DistStoreError: timed out", 2: 0.1}
    monkeypatch.setattr(all_reduce, "_collect", lambda answers, processes: took)
    monkeypatch.setattr(all_reduce, "_cores", lambda: 3)
    (finding,) = RING(3, 0)
    assert finding.level is Level.bad
    assert finding.what.endswith("over gloo: rank 0, rank 1: DistStoreError: timed out")
    assert finding.fix
