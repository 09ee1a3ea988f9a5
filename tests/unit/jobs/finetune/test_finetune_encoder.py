"""`poma finetune` with an encoder that is trained with its head, on tiny rooms: what is trained, resumed,
asked, exported; where its scenes come from; what is refused."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.ask.head import load, open_run, scenes_of
from jobs.ask.scene import find
from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders
from jobs.evaluate.measure import MODEL, UNTRAINED
from jobs.features.sets import open_features
from jobs.finetune.scenes import SceneStore, open_scenes
from plinth.checkpoint import save_load
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import RowGroupReader
from plinth.errors import ConfigError, DataError
from plinth.storage import Storage, StorageOptions
from poma3d import export
from tests.helpers.downstream import heads
from tests.helpers.tiny_jobs import ingest_job, write

OPTIONS = StorageOptions()
PREFIX = "encoder.vit."


def job_of(home: Path, name: str = "qa", **changes: Any) -> dict[str, Any]:
    split = {"annotations": [str(home / "rooms/questions.jsonl")], "scenes": [str(home / "rooms")]}
    encoder = {"source": str(home / "encoder"), "lr": 1e-3}
    return heads.finetune_job(
        home, name=name, **{"train": split, "val": split, "encoder": encoder, **changes}
    )


def run(home: Path, name: str = "qa", **changes: Any) -> int:
    return main(["finetune", write(home / f"{name}.yaml", job_of(home, name, **changes))])


def weights(home: Path, name: str = "qa") -> dict[str, torch.Tensor]:
    storage = Storage.from_uri(home / "runs" / name / "heads" / "checkpoints")
    return save_load.read_full(storage, home / "scratch")


def figures(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "runs" / name / "results.json").read_text())
    return found


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run. Leave it as it is."""
    home = tmp_path_factory.mktemp("trained")
    for name in ("rooms", "teacher", "tower", "encoder"):
        shutil.copytree(prepared / name, home / name)
    assert run(home) == 0
    return home


def test_the_whole_encoder_is_trained_and_exported(trained: Path, tmp_path: Path) -> None:
    before = export.load(trained / "encoder").vit
    after = {n.removeprefix(PREFIX): w for n, w in weights(trained).items() if n.startswith(PREFIX)}
    assert after.keys() == before.state_dict().keys()
    same = {name for name, weight in before.state_dict().items() if torch.equal(weight, after[name])}
    assert same == {f"blocks.{layer}.attn.k.bias" for layer in range(len(before.blocks))}  # softmax drops it
    job = {"kind": "export", "run": str(trained / "runs/qa"), "output": str(tmp_path / "out")}
    assert main(["export", write(tmp_path / "export.yaml", job)]) == 0
    exported = export.load(tmp_path / "out")
    assert all(torch.equal(weight, after[name]) for name, weight in exported.vit.state_dict().items())
    assert exported.provenance.run.endswith("qa/heads step 4")
    earlier = encoders.load(str(trained / "runs/qa"), OPTIONS, step=2)
    assert export.weights_digest(earlier) != export.weights_digest(exported)


def test_a_run_is_evaluated_and_was_nothing_before_training(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, data = str(trained / "runs/qa"), str(trained / "rooms")
    draws = {"bootstrap": {"draws": 20}}
    asked = {
        "kind": "evaluate", "run": uri, "data": data, "teacher": {"source": str(trained / "teacher")},
        "retrieval": {"utterances": [1], "best": [1], **draws}, "probe": draws, "output": str(tmp_path),
    }  # fmt: skip
    assert main(["evaluate", write(tmp_path / "evaluate.yaml", asked)]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert MODEL in found
    assert UNTRAINED not in found
    job = {"kind": "features", "encoder": uri, "data": data, "output": str(tmp_path / "f"), "workers": 0}
    capsys.readouterr()
    assert main(["features", write(tmp_path / "f.yaml", {**job, "weights": "untrained"})]) == 2
    assert f"{uri} is no run of `poma pretrain`" in capsys.readouterr().err


def test_a_run_that_lost_its_end_ends_as_before(trained: Path, tmp_path: Path) -> None:
    for name in ("rooms", "teacher", "tower", "encoder", "runs"):
        shutil.copytree(trained / name, tmp_path / name)
    folder = tmp_path / "runs/qa"
    (folder / "config.yaml").unlink()
    last = max((folder / "heads/checkpoints").glob("*4"))
    shutil.rmtree(last)
    assert run(tmp_path) == 0
    straight, resumed = weights(trained), weights(tmp_path)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert figures(trained, "qa")["selection"] == figures(tmp_path, "qa")["selection"]


def test_asking_reads_the_scene_with_the_trained_encoder(trained: Path) -> None:
    opened = open_run(str(trained / "runs/qa"), OPTIONS, step=4)
    seen = scenes_of(opened, None)
    asked = load(opened, seen)
    sample = open_dataset(str(trained / "rooms"), OPTIONS).samples()[3]
    found = find(asked, sample.scene_id)
    encoder = encoders.load(str(trained / "runs/qa"), OPTIONS)
    expected = encoder.from_depth(
        sample.depth[None], sample.depth_scale, sample.intrinsics[None], sample.pose[None]
    ).projected[0]
    np.testing.assert_allclose(found.content["views"], expected.numpy(), rtol=1e-4, atol=1e-4)
    assert found.view_valid.tolist() == sample.view_valid.tolist()


def test_poma_ask_takes_scenes_and_no_features(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = open_scenes([str(trained / "rooms")], OPTIONS).scene_ids()[0]
    words = ["ask", str(trained / "runs/qa"), scene, "how many chairs are there?"]
    assert main([*words, "--output", str(tmp_path / "asked.html")]) == 0
    assert (tmp_path / "asked.html").exists()
    assert "attention" in capsys.readouterr().out
    assert main([*words, "--features", str(trained / "rooms")]) == 2
    assert "which reads no features" in capsys.readouterr().err
    assert main(["ask", words[1], "nowhere", words[3]]) == 2
    assert "has no scene 'nowhere'" in capsys.readouterr().err
    large = ingest_job(tmp_path / "large", rooms=2, shape={"views": 2, "height": 48, "width": 48})
    assert main(["ingest", write(tmp_path / "large.yaml", large)]) == 0
    capsys.readouterr()
    assert main([*words, "--data", str(tmp_path / "large")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "scenes have views of (48, 48) pixels, the encoder takes (32, 32)" in line


def test_scenes_that_have_moved_can_be_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "runs/qa", tmp_path / "qa")
    config, rooms = tmp_path / "qa/config.yaml", str(trained / "rooms")
    config.write_text(config.read_text().replace(rooms, str(tmp_path / "gone")))
    scene = open_scenes([rooms], OPTIONS).scene_ids()[0]
    words = ["ask", str(tmp_path / "qa"), scene, "how many chairs are there?"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("Name them with --data.")
    assert main([*words, "--data", rooms, "--output", str(tmp_path / "asked.html")]) == 0


def test_frozen_and_trained_see_the_same_before_the_first_step(trained: Path, prepared: Path) -> None:
    """The head scores alike on cached features and on scenes while the encoder is where it started."""
    opened = open_run(str(trained / "runs/qa"), OPTIONS)
    seen = scenes_of(opened, None)
    asked = load(opened, seen)
    stage = asked.stage
    first = export.load(trained / "encoder")
    assert stage.encoder is not None
    stage.encoder.vit.load_state_dict(first.vit.state_dict())
    cached = open_features([str(prepared / "features")], OPTIONS)
    for scene_id in seen.scene_ids():
        np.testing.assert_allclose(
            find(asked, scene_id).content["views"],
            cached.find(scene_id).views.views.astype(np.float32),
            atol=5e-3,
        )


def test_shuffled_scenes_are_others(home: Path) -> None:
    assert run(home, "plain") == 0
    assert run(home, "shuffled", shuffle_scenes=True) == 0
    first, second = weights(home, "plain"), weights(home, "shuffled")
    assert not torch.equal(first[f"{PREFIX}head.weight"], second[f"{PREFIX}head.weight"])


def test_the_store_gives_what_the_data_set_holds(home: Path) -> None:
    sets = open_scenes([str(home / "rooms")], OPTIONS)
    store = SceneStore(sets, 2)
    samples = open_dataset(str(home / "rooms"), OPTIONS).samples()
    assert sets.scene_ids() == [sample.scene_id for sample in samples]
    store.read_ahead([7, 1])
    for numbers in ([7, 1], [0, 1, 2, 3, 4], [6]):  # more than it keeps
        found = store.read(numbers)
        assert set(found) == {"depth", "depth_scale", "intrinsics", "pose", "view_valid"}
        for row, number in enumerate(numbers):
            for name in found:
                np.testing.assert_array_equal(found[name][row], getattr(samples[number], name), err_msg=name)


def test_a_row_group_is_read_once_by_all_threads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_ask, real, calls = threading.Barrier(2, timeout=10), RowGroupReader.read_packed, []

    def read_packed(self: RowGroupReader, shard: ShardEntry, group: int, columns: Sequence[str]) -> Any:
        calls.append((shard.name, group))
        if len(calls) == 1:
            raise DataError("out of order")
        time.sleep(0.05)  # until the other thread asks, too
        return real(self, shard, group, columns)

    def group_when_both_ask(self: SceneStore, source: int, shard: ShardEntry, group: int) -> Any:
        both_ask.wait()
        return real_group(self, source, shard, group)

    monkeypatch.setattr(RowGroupReader, "read_packed", read_packed)
    store = SceneStore(open_scenes([str(home / "rooms")], OPTIONS), 2)
    with pytest.raises(DataError, match="out of order"):
        store.read([0])
    real_group = SceneStore._group
    monkeypatch.setattr(SceneStore, "_group", group_when_both_ask)
    store.read_ahead([1, 0])
    store.read([1, 0])  # of one row group, after a read of it that failed
    assert calls == [calls[0]] * 2


def test_scenes_that_cannot_be_used_are_named(home: Path) -> None:
    twice = [str(home / "rooms"), str(home / "rooms")]
    with pytest.raises(DataError, match="is there twice"):
        open_scenes(twice, OPTIONS).scene_ids()
    sets = open_scenes([str(home / "rooms")], OPTIONS)
    storage, manifest = sets.sources[0].storage, sets.sources[0].manifest
    shard = home / "rooms" / manifest.shards[0].name
    content = shard.read_bytes()
    shard.write_bytes(content[:-1000] + bytes(1000))
    with pytest.raises(DataError, match=manifest.shards[0].name):
        SceneStore(sets, 2).read([0])
    manifests.commit(storage, Manifest(manifest.shards, manifest.attributes | {"note": "another"}))
    with pytest.raises(DataError, match="built again"):
        SceneStore(sets, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoder": None}, "train.scenes is given without an encoder"),
        ({"encoder": {"source": "rooms"}}, "neither a run"),
        ({"encoder": {"source": "encoder", "lr": 0.0}}, "encoder.lr is 0.0"),
        ({"encoder": {"source": "encoder", "cached_scenes": 0}}, "encoder.cached_scenes is 0"),
        ({"head": {"inputs": "question"}}, "that nothing would look at"),
        (
            {"train": {"annotations": ["x"], "features": ["features"]}},
            "train.features is given with",
        ),
        ({"train": {"annotations": ["x"], "scenes": ["nowhere"]}}, "nowhere"),
        ({"qa": {"task": "rooms", "select_on": "test"}}, "Give test.annotations and test.scenes."),
        ({"text": {"kind": "teacher", "source": "teacher"}}, "was trained with"),
    ],
)
def test_mistakes_with_a_trained_encoder_are_one_line(
    home: Path,
    changes: dict[str, Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(home)
    capsys.readouterr()
    assert run(home, **changes) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_an_encoder_that_changed_since_the_run_began_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "encoder", home / "mine")
    encoder = {"source": str(home / "mine")}
    assert run(home, encoder=encoder) == 0
    other = export.load(home / "mine")
    next(other.parameters()).data.add_(0.1)
    export.save(other, home / "mine")
    assert run(home, encoder=encoder) == 2
    assert "encoder.source (its weights) was" in capsys.readouterr().err


def test_questions_of_a_changed_encoder_are_other_questions(home: Path) -> None:
    assert run(home) == 0
    before = figures(home, "qa")["encoder"]["digest"]
    shutil.rmtree(home / "runs/qa/heads")  # nothing was trained yet: another encoder is no other run
    (home / "runs/qa/config.yaml").unlink()
    other = export.load(home / "encoder")
    next(other.parameters()).data.add_(0.1)
    export.save(other, home / "encoder")
    assert run(home) == 0
    assert figures(home, "qa")["encoder"]["digest"] != before


def test_a_run_on_features_has_no_encoder_to_export(home: Path) -> None:
    assert main(["finetune", write(home / "qa.yaml", heads.finetune_job(home))]) == 0
    with pytest.raises(ConfigError, match="no encoder of its own"):
        encoders.load(str(home / "runs/qa"), OPTIONS)
