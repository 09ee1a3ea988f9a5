"""`poma submit` before anything is sent: secrets refused, paths absolute, jobs checked, names that stay."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.common.secrets import environment, refuse_secret_overrides, refuse_secrets
from jobs.submit import package as submit_package
from jobs.submit.submission import resolve
from plinth import config
from plinth.errors import ConfigError
from tests.helpers.tiny_jobs import embed_file, ingest_job, pretrain_job, write

ROOT = Path(__file__).parents[4]
ADDRESS = ["--address", "http://127.0.0.1:1"]
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["submit", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ({"storage": {"secret_key": SECRET}}, "storage.secret_key"),
        ({"storage": {"endpoint_url": f"http://me:{SECRET}@store"}}, "storage.endpoint_url"),
        ({"storage": {"access_key_env": "AKIAABCDEFGHIJKLMNOP"}}, "storage.access_key_env"),
        ({"output": f"s3://bucket/x?X-Amz-Signature={SECRET}"}, "output"),
        ({"name": SECRET}, "name"),
        ({"teacher": {"source": "hf_abcdefghijklmnopqrstuvw"}}, "teacher.source"),
        ({"main": {"data": {"sources": [{"uri": f"s3://me:{SECRET}@b"}]}}}, "main.data.sources[0].uri"),
        ({"api_token": "short"}, "api_token"),
    ],
)
def test_a_secret_in_the_job_is_refused_by_its_key(
    where: dict[str, Any], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", {"kind": "pretrain", **where})
    line = refused(capsys, job, *ADDRESS)
    assert f"{key} holds a secret (not shown)" in line
    assert "storage.secret_key_env=NAME" in line
    assert SECRET not in line
    assert "AKIA" not in line


@pytest.mark.parametrize(
    "override", [f"storage.secret_key={SECRET}", f"main.data.sources=[{{uri: 's3://me:{SECRET}@b'}}]"]
)
def test_a_secret_in_an_override_is_refused(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(tmp_path / "job.yaml", {"kind": "pretrain"})
    line = refused(capsys, job, override, *ADDRESS)
    assert f"the override of {override.partition('=')[0]} holds a secret" in line
    assert SECRET not in line


def test_a_secret_of_this_shell_is_known_wherever_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_STORE_KEY", "correct horse")
    job = Path(write(tmp_path / "job.yaml", {"kind": "pretrain", "name": "with correct horse in it"}))
    with pytest.raises(ConfigError, match="name holds a secret"):
        refuse_secrets(config.read(job), str(job))


def test_names_of_variables_and_commits_are_no_secrets(tmp_path: Path) -> None:
    job = pretrain_job(
        tmp_path, storage={"access_key_env": "MY_ACCESS_KEY", "secret_key_env": "MY_SECRET_KEY"}
    )
    job["teacher"]["revision"] = "0123456789abcdef0123456789abcdef01234567"
    job["teacher"]["source"] = f"/{'Data1/' * 6}abc"
    assert len(job["teacher"]["source"]) == 40
    refuse_secrets(config.read(write(tmp_path / "job.yaml", job)), "job.yaml")
    refuse_secret_overrides(["storage.session_token_env=MY_SESSION_TOKEN"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "whatever"),
        ("PLAIN", SECRET),
        ("RAY_AUTH_TOKEN", "whatever"),
        ("PW", "hf_" + "a" * 20),
    ],
)
def test_a_secret_in_the_environment_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"--env {name} holds a secret \(not shown\)") as error:
        environment([f"{name}={value}"])
    assert value not in str(error.value)


def test_the_environment_has_words_of_one_form() -> None:
    assert environment(["NCCL_DEBUG=INFO", "A=b=c"]) == {"NCCL_DEBUG": "INFO", "A": "b=c"}
    for word in ("NCCL_DEBUG", "1A=x", "=x"):
        with pytest.raises(ConfigError, match="expected as NAME=VALUE"):
            environment([word])


def test_the_name_is_that_of_the_run_wherever_it_is_submitted_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = pretrain_job(tmp_path, name="Rooms 2")
    job["output"] = "runs"
    (tmp_path / "teacher").mkdir()
    job["teacher"]["source"] = "teacher"
    path = Path(write(tmp_path / "job.yaml", job))
    monkeypatch.chdir(tmp_path)
    here = resolve(path, [])
    assert here.uri == str(tmp_path / "runs" / "Rooms 2")
    assert here.name.startswith("poma-rooms-2-")
    assert here.has_local_paths
    sent = yaml.safe_load(here.text)
    assert (sent["output"], sent["teacher"]["source"]) == (str(tmp_path / "runs"), str(tmp_path / "teacher"))
    assert resolve(path, ["optim.lr=1e-3"]).name == here.name
    assert resolve(path, ["name=other"]).name != here.name


def test_uris_and_hub_ids_stay_as_they_are(tmp_path: Path) -> None:
    job = pretrain_job(tmp_path, output="s3://bucket/runs", warmup=None)
    job["teacher"] = {"source": "openai/clip-vit-base-patch16"}
    job["main"]["data"]["sources"] = [{"uri": "s3://bucket/rooms#3"}]
    found = resolve(Path(write(tmp_path / "job.yaml", job)), [])
    assert not found.has_local_paths
    assert (found.uri, found.job.teacher.source) == ("s3://bucket/runs/run", "openai/clip-vit-base-patch16")
    assert found.job.main.data.sources[0].uri == "s3://bucket/rooms#3"


def test_other_kinds_go_the_same_way(tmp_path: Path) -> None:
    ingest = resolve(Path(write(tmp_path / "ingest.yaml", ingest_job(tmp_path / "rooms"))), [])
    assert (ingest.uri, ingest.command("job.yaml", False)) == (
        str(tmp_path / "rooms"),
        "poma ingest job.yaml",
    )
    assert ingest.name.startswith("poma-ingest-")
    embed = resolve(Path(embed_file(tmp_path, "rooms")), [])
    assert (embed.kind, embed.uri) == ("embed", str(tmp_path / "rooms"))


def test_what_pretrain_refuses_is_refused_before_anything_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write(folder / "job.yaml", pretrain_job(folder))
    assert "4 workers are more than the 2 lanes" in refused(
        capsys, job, "fit.workers=4", "warmup=null", *ADDRESS
    )
    gone = [
        "main.data.sources=[{uri: s3://b/x}]",
        "storage.endpoint_url=http://127.0.0.1:1",
        "storage.retries=0",
    ]
    keys = ["storage.access_key_env=ONE_KEY", "storage.secret_key_env=OTHER_KEY"]
    assert "If only the cluster reaches it, add --skip-check." in refused(capsys, job, *gone, *keys, *ADDRESS)
    assert "No Ray cluster answers" in refused(capsys, job, *gone, *keys, "--skip-check", *ADDRESS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*ADDRESS], "There is no job to submit"),
        (["{job}", "--attach", "x-1", *ADDRESS], "--attach goes with"),
        (["{job}", "ray.address=10.0.0.1:6379", *ADDRESS], "Leave ray.address empty"),
        (["{job}", "fit.wrokers=1", *ADDRESS], "unknown key fit.wrokers"),
        (["{ingest}", "--accept-changes", *ADDRESS], "`poma ingest` has no --accept-changes"),
        (["{demo}", *ADDRESS], "a demo is not submitted"),
        (["{ingest}", "--cluster", "/nowhere.yaml"], "not a cluster file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {
        "job": write(tmp_path / "job.yaml", pretrain_job(tmp_path)),
        "ingest": write(tmp_path / "ingest.yaml", ingest_job(tmp_path / "rooms")),
        "demo": write(tmp_path / "demo.yaml", {"kind": "demo"}),
    }
    assert words in refused(capsys, *(argument.format(**paths) for argument in arguments))


def test_the_package_is_the_code_and_the_job_and_nothing_else(tmp_path: Path) -> None:
    first = submit_package.build(tmp_path, "kind: pretrain\n")
    content = first.path.read_bytes()
    with zipfile.ZipFile(first.path) as archive:
        names = archive.namelist()
        assert archive.read("job.yaml") == b"kind: pretrain\n"
    assert {"jobs/cli.py", "plinth/world.py", "poma3d/sample.py", "jobs/display/page.html"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"job.yaml", "jobs", "plinth", "poma3d"}
    display = [path for path in (ROOT / "jobs/display").rglob("*") if path.is_file()]
    pages = {path.relative_to(ROOT).as_posix() for path in display if path.suffix != ".pyc"}
    assert pages <= set(names), "a run there writes its page"
    assert {Path(name).suffix for name in names} == {".py", ".html", ".css", ".js", ".yaml", ""}
    assert not [name for name in names if "__pycache__" in name or "/." in name]
    assert first.size_bytes == len(content) < 2_000_000
    assert submit_package.build(tmp_path, "kind: pretrain\n").path.read_bytes() == content, "the same bytes"
