"""`poma doctor --cluster FILE` says which versions in the file are stale, one finding each."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.doctor import all_reduce, versions
from jobs.doctor.finding import Level
from plinth.errors import ConfigError

ROOT = Path(__file__).parents[4]
RAY = version("ray")


def said(folder: Path, text: str) -> list[str]:
    """What the findings on a file of this text say, without what is well."""
    path = folder / "file.yaml"
    path.write_text(text)
    found = list(versions.versions(path))
    assert all(one.fix and one.why for one in found if one.level is not Level.ok)
    assert len({one.level for one in found}) == 1
    return [one.what for one in found if one.level is not Level.ok]


@pytest.mark.parametrize(
    "text",
    [
        "image: quay.io/kuberay/operator:v1.6.2",
        "image: {repository: quay.io/kuberay/operator, tag: v1.6.2}",
        "labels: {helm.sh/chart: kuberay-operator-1.6.2}",
        "resources: ['https://github.com/ray-project/kuberay/ray-operator/config/default?ref=v1.6.2']",
    ],
)
def test_an_operator_that_is_too_old(text: str, tmp_path: Path) -> None:
    assert said(tmp_path, text) == ["file.yaml names KubeRay 1.6.2 (1 time); 1.7 is needed"]
    for newer in ("1.7.0", "1.7.1", "2.0"):
        assert not said(tmp_path, text.replace("1.6.2", newer))


@pytest.mark.parametrize(
    "text",
    [
        "image: registry.k8s.io/kueue/kueue:v0.9.4",
        "labels: {helm.sh/chart: kueue-0.9.4}",
        "resources: ['https://github.com/kubernetes-sigs/kueue/releases/download/v0.9.4/manifests.yaml']",
    ],
)
def test_a_queue_that_is_too_old(text: str, tmp_path: Path) -> None:
    assert said(tmp_path, text) == ["file.yaml names Kueue 0.9.4 (1 time); 0.16 is needed"]
    assert not said(tmp_path, text.replace("0.9.4", "0.16.0")), "numbers, not texts, are compared"


@pytest.mark.parametrize(
    "text",
    [
        "spec: {rayVersion: 2.52.0}",
        "docker: {image: 'rayproject/ray:2.52.0-py311-gpu'}",
        "setup_commands: ['pip install -U \"ray[default, train]==2.52.0\" torch==2.13.0']",
        "setup_commands: ['pip install ray == 2.52.0']",
        "setup_commands: ['pip install https://host/ray-2.52.0-cp311-cp311-manylinux2014_x86_64.whl']",
    ],
)
def test_another_ray_than_the_one_here(text: str, tmp_path: Path) -> None:
    assert said(tmp_path, text) == [f"file.yaml names Ray 2.52.0 (1 time); {RAY} is installed here"]
    assert not said(tmp_path, text.replace("2.52.0", RAY))


def test_one_finding_for_each_version_however_often_it_stands_there(tmp_path: Path) -> None:
    text = (
        "apiVersion: ray.io/v1\nkind: RayCluster\nspec:\n  rayVersion: 2.52.0\n"
        "  a: {image: 'rayproject/ray:2.52.0'}\n"
        "  b: {image: 'rayproject/ray:2.51.0'}  # rayproject/ray:2.50.0\n"
        "---\napiVersion: kueue.x-k8s.io/v1beta1\nkind: LocalQueue\n"
    )
    assert said(tmp_path, text) == [
        "file.yaml has objects of kueue.x-k8s.io/v1beta1 (1 time)",
        f"file.yaml names Ray 2.52.0 (2 times); {RAY} is installed here",
        f"file.yaml names Ray 2.51.0 (1 time); {RAY} is installed here",
    ]


def test_what_only_looks_like_a_version(tmp_path: Path) -> None:
    text = "a: x-ray==1.0\nb: array==1.0\nc: kueue.x-k8s.io/v1beta2\nd: 'rayproject/ray:nightly'\n"
    text += "e: kueue-system\n"
    assert not said(tmp_path, text)


@pytest.mark.parametrize("folder", ["clusters", "infra/kuberay"])
def test_our_own_files_are_not_stale(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.yaml"))
    assert len(files) > 5
    stale = [one.what for path in files for one in versions.versions(path) if one.level is not Level.ok]
    assert not stale


def test_the_command_says_it_of_a_manifest_and_of_a_cluster_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(all_reduce, "local_ring", lambda workers, gpus: [])
    manifest = tmp_path / "run.yaml"
    manifest.write_text("apiVersion: ray.io/v1\nkind: RayJob\nspec: {rayClusterSpec: {rayVersion: 2.52.0}}\n")
    assert main(["doctor", "--cluster", str(manifest)]) == 0
    out = capsys.readouterr().out
    assert f"warn  versions   run.yaml names Ray 2.52.0 (1 time); {RAY} is installed here" in out
    assert "why: " in out
    assert main(["doctor", "--cluster", str(ROOT / "clusters/onprem.yaml")]) == 0
    well = f"ok    versions   onprem.yaml names no version older than needed (Ray {RAY})"
    assert well in capsys.readouterr().out


def test_a_file_that_is_no_yaml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "torn.yaml").write_text("a: [1")
    for name, words in (("torn.yaml", "not valid YAML"), ("none.yaml", "no such file")):
        with pytest.raises(ConfigError, match=words):
            versions.is_manifest(tmp_path / name)
