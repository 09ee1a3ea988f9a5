"""`poma features` on tiny rooms: what the encoder gives, exactly once, and of which encoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.evaluate.measure import encode
from jobs.features import command, tasks
from jobs.features.config import FeaturesJob
from jobs.features.sets import open_features
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.errors import DataError, PlinthError
from plinth.storage import Storage, StorageOptions
from poma3d import export
from tests.helpers.downstream import heads
from tests.helpers.tiny_jobs import write

OPTIONS = StorageOptions()


def job_of(folder: Path, **changes: Any) -> FeaturesJob:
    return FeaturesJob(
        encoder=str(folder / "encoder"),
        data=str(folder / "rooms"),
        output=str(folder / "features"),
        workers=0,
        **changes,
    )


def test_features_are_what_the_encoder_gives(folder: Path) -> None:
    heads.make_features(folder)
    samples = open_dataset(str(folder / "rooms"), OPTIONS).samples()
    units = encode(export.load(folder / "encoder"), samples, batch_size=3)
    found = dict(open_features([str(folder / "features")], OPTIONS).scenes())
    assert list(found) == [sample.scene_id for sample in samples]
    for sample, expected in zip(samples, units, strict=True):
        views = found[sample.scene_id].views.astype(np.float32)
        unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit, expected, atol=2e-3)
        assert found[sample.scene_id].view_valid.tolist() == sample.view_valid.tolist()
        one = open_features([str(folder / "features")], OPTIONS).find(sample.scene_id)
        np.testing.assert_array_equal(one.views.views, found[sample.scene_id].views)
        assert one.views.view_valid.tolist() == sample.view_valid.tolist()


def test_a_killed_job_goes_on_and_a_finished_one_does_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heads.make_features(folder)
    whole = manifests.load(Storage.from_uri(folder / "features"))
    job = job_of(folder)
    job.output = str(folder / "again")
    real, calls = tasks.encode_shard, []

    def dies_at_the_second(work: tasks.FeatureWork, entry: Any) -> str:
        calls.append(entry.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(work, entry)

    monkeypatch.setattr(command, "encode_shard", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        command.features(job)
    assert not Storage.from_uri(job.output).exists(manifests.MANIFEST_KEY)
    _, manifest, _ = command.features(job)
    assert len(calls) == 3  # two shards: one done, one killed, that one again
    assert manifest.shards == whole.shards
    command.features(job)
    assert len(calls) == 3


def test_a_data_set_that_keeps_its_builds_gives_features_that_do(folder: Path) -> None:
    heads.make_features(folder)
    rooms = Storage.from_uri(folder / "rooms")
    built = manifests.load(rooms)
    for version, shards in ((1, built.shards[:1]), (2, built.shards)):
        manifest = Manifest(shards, built.attributes | {"version": version})
        manifests.commit(rooms.child(manifests.version_folder(version)), manifest)
        manifests.commit(rooms, manifest)
        job = job_of(folder)
        job.output = str(folder / "versions")
        command.features(job)
    found = Storage.from_uri(folder / "versions")
    assert manifests.versions(found) == [1, 2]
    assert len(manifests.load_version(found, 1).shards) == 1
    assert len(manifests.load(found).shards) == 2
    assert len(open_features([f"{found.uri}#1"], OPTIONS).scene_ids()) == 4


def test_patches_are_kept_where_they_are_asked_for(folder: Path) -> None:
    heads.make_features(folder)
    job = job_of(folder, patches=True)
    job.output = str(folder / "patches")
    _, manifest, busy = command.features(job)
    assert "patches" in manifest.columns
    assert manifest.attributes["shape"]["patches"] == 16
    assert busy is not None
    assert 0 < busy <= 1


def test_features_of_another_encoder_are_refused_at_the_same_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = heads.make_features(folder)
    encoder = export.load(folder / "encoder")
    next(encoder.parameters()).data.add_(0.1)
    export.save(encoder, folder / "other")
    other = write(folder / "other.yaml", {**job, "encoder": str(folder / "other")})
    assert main(["features", other]) == 2
    assert "another encoder" in capsys.readouterr().err


def test_features_of_another_data_set_are_refused_at_the_same_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set that moved as it was is the same one, and one that got more scenes where it is."""
    job = heads.make_features(folder)
    kept = (folder / "features/MANIFEST.json").read_bytes()
    shutil.copytree(folder / "rooms", folder / "moved")
    moved = write(folder / "moved.yaml", {**job, "data": str(folder / "moved")})
    capsys.readouterr()
    assert main(["features", moved]) == 0
    assert "done already" in capsys.readouterr().out
    built = manifests.load(Storage.from_uri(folder / "moved"))
    fewer = Manifest(built.shards[:1], built.attributes)
    manifests.commit(Storage.from_uri(folder / "moved"), fewer)
    assert main(["features", moved]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"holds the features of {folder / 'rooms'}, and data is {folder / 'moved'}." in line
    assert (folder / "features/MANIFEST.json").read_bytes() == kept
    manifests.commit(Storage.from_uri(folder / "rooms"), fewer)
    command.features(job_of(folder))
    assert len(manifests.load(Storage.from_uri(folder / "features")).shards) == 1


def test_sets_of_different_encoders_do_not_mix(folder: Path) -> None:
    job = heads.make_features(folder)
    encoder = export.load(folder / "encoder")
    next(encoder.parameters()).data.add_(0.1)
    export.save(encoder, folder / "other")
    changed = {**job, "encoder": str(folder / "other"), "output": str(folder / "others")}
    assert main(["features", write(folder / "other.yaml", changed)]) == 0
    with pytest.raises(DataError, match="expected those of"):
        open_features([str(folder / "features"), str(folder / "others")], OPTIONS)


def test_an_export_is_named_by_the_hash_of_its_weights(folder: Path) -> None:
    heads.make_features(folder)
    encoder = export.load(folder / "encoder")
    export.save(encoder, folder / "copy")
    digest = open_features([str(folder / "features")], OPTIONS).encoder["digest"]
    assert export.weights_digest(export.load(folder / "copy")) == digest
    encoder.vit.patch_embed.gain = 2.0
    assert export.weights_digest(encoder) != digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": "untrained"}, "is no run"),
        ({"weights": "untrained", "step": 3}, "name a checkpoint"),
        ({"output": "rooms"}, "output is the data set that is read"),
        ({"encoder": "rooms"}, "neither a run"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = heads.make_features(folder)
    placed = {k: str(folder / v) if k in ("output", "encoder") else v for k, v in changes.items()}
    assert main(["features", write(folder / "bad.yaml", {**job, **placed})]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_diverged_encoder_is_named_with_its_scene(folder: Path) -> None:
    heads.make_features(folder)
    encoder = export.load(folder / "encoder")
    encoder.vit.head.weight.data.fill_(float("nan"))
    export.save(encoder, folder / "encoder")
    job = job_of(folder)
    job.output = str(folder / "diverged")
    with pytest.raises(PlinthError, match=r"room-0-\d+.*not finite"):
        command.features(job)
