"""`poma finetune` of a language model on tiny rooms: what is written, resumed, refused; what it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders
from jobs.finetune.llm import conversations
from jobs.finetune.llm.answers import answers, open_run, read_job
from jobs.finetune.llm.config import ConversationsConfig, FinetuneLlmJob
from jobs.finetune.llm.resolve import resolve
from jobs.finetune.scenes import open_scenes
from jobs.jobfile import load
from plinth.checkpoint import save_load, store
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.inputs import point_maps
from poma3d.seen import voxels
from tests.helpers.downstream import llm
from tests.helpers.downstream.llm_jobs import NEW, job_of, run
from tests.helpers.tiny_jobs import write

OPTIONS = StorageOptions()


def checkpoints(output: Path) -> Storage:
    return Storage.from_uri(output / "llm/training/checkpoints")


def weights(output: Path) -> dict[str, torch.Tensor]:
    return save_load.read_full(checkpoints(output), output / "scratch")


def test_a_checkpoint_holds_adapters_and_projector_alone(trained_llm: Path) -> None:
    names = {key.partition("/")[2] for key in store.read_state(checkpoints(trained_llm), None)["shapes"]}
    assert names
    assert all("lora" in name or name.startswith("projector.") for name in names)
    assert all(weight.isfinite().all() for weight in weights(trained_llm).values())


def test_a_run_that_lost_its_end_ends_as_before(llm_home: Path, trained_llm: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_llm / "llm", tmp_path / "llm")
    shutil.rmtree(max((tmp_path / "llm/training/checkpoints").glob("*4")))
    (tmp_path / "llm/config.yaml").unlink()
    assert run(llm_home, tmp_path) == 0
    straight, resumed = weights(trained_llm), weights(tmp_path)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_conversations_are_mixed_by_weight(llm_home: Path, tmp_path: Path) -> None:
    job = load(FinetuneLlmJob, Path(write(tmp_path / "llm.yaml", job_of(llm_home, tmp_path))))
    resolved = resolve(job)
    assert [(s.manifest.rows, s.weight) for s in resolved.stage.mixture.sources] == [
        (110, 1.0), (8, 0.5), (16, 0.5),
    ]  # fmt: skip
    again = resolve(job)
    assert [s.uri for s in again.stage.mixture.sources] == [s.uri for s in resolved.stage.mixture.sources]
    assert resolved.stage.notes == again.stage.notes


def test_other_weights_of_the_model_are_refused_on_resume(
    llm_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(llm_home / "model", tmp_path / "model")
    source = {"source": str(tmp_path / "model"), "model": "vision_language", "lora": {"rank": 2}}
    assert run(llm_home, tmp_path, llm=source) == 0
    llm.network(llm.QWEN3_VL, seed=1).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    assert run(llm_home, tmp_path, llm=source) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "llm.source (its weights) was" in line


def test_captions_are_conversations_about_scenes_and_views(llm_home: Path) -> None:
    scenes = open_scenes([str(llm_home / "rooms")], OPTIONS)
    first = open_dataset(str(llm_home / "rooms"), OPTIONS).samples()[0]
    config = ConversationsConfig("scene_captions", requests=["What is this?", "Describe it."])
    found = conversations.read(config, " ", scenes, OPTIONS, "x")[0]
    assert (found.scene_id, found.answers, found.view) == (
        first.scene_id, tuple(first.scene_captions), -1
    )  # fmt: skip
    assert found.texts == ("What is this?", "Describe it.")
    of_views = conversations.read(ConversationsConfig("view_captions"), " ", scenes, OPTIONS, "x")
    assert (of_views[1].view, of_views[1].answers) == (1, tuple(first.view_captions[1]))


def test_patches_are_where_the_scene_is(llm_home: Path, tmp_path: Path) -> None:
    job = load(FinetuneLlmJob, Path(write(tmp_path / "llm.yaml", job_of(llm_home, tmp_path))))
    resolved = resolve(job)
    stage = resolved.stage.build_stage(resolved.stage.mixture.sources)
    sample = open_dataset(str(llm_home / "rooms"), OPTIONS).samples()[5]
    number = resolved.setup.numbers.ids.index(sample.scene_id)
    found = stage.seen.scenes.read([number])
    columns = ("depth", "depth_scale", "intrinsics", "pose")
    geometry = {name: torch.from_numpy(np.array(getattr(sample, name)))[None] for name in columns}
    expected = voxels.patch_points(point_maps(geometry)[0], resolved.setup.patches)
    np.testing.assert_array_equal(found["patch_points"][0], expected.points)
    assert found["patches"].shape == (1, 2, resolved.setup.patches, resolved.setup.width)


@pytest.mark.parametrize("tokens", ["voxels", "none"])
def test_a_new_model_with_its_encoder_learns_and_answers(llm_home: Path, tmp_path: Path, tokens: str) -> None:
    """It is asked about what it was trained on, long enough to know some of it by heart."""
    rooms = {"kind": "rooms", "annotations": [str(llm_home / "rooms/questions.jsonl")]}
    train = {"conversations": [rooms], **({} if tokens == "none" else {"scenes": [str(llm_home / "rooms")]})}
    encoder = None if tokens == "none" else {"source": str(llm_home / "encoder"), "lr": 1e-4}
    scene = {"tokens": tokens, "cell_m": 0.5, "max_voxels": 16, "projector_lr": 1e-3}
    training = {
        **job_of(llm_home, tmp_path)["training"],
        "steps": 60,
        "global_batch_size": 16,
        "micro_batch_size": 16,
    }
    changes = {"llm": NEW, "encoder": encoder, "scene": scene, "train": train, "training": training}
    changes |= {"optim": {"lr": 2e-2, "warmup_steps": 2}, "checkpoint": {"every_steps": 60}}
    assert run(llm_home, tmp_path, **changes) == 0
    uri = str(tmp_path / "llm")
    job = read_job(uri, OPTIONS)
    opened = open_run(uri, OPTIONS, job.train, "train")
    asked = conversations.read(job.train.conversations[0], " ", None, OPTIONS, "train")
    said = list(answers(opened, asked[:24], batch_size=10, max_tokens=8))
    assert {each.question_id for each, _ in said} == {each.question_id for each in asked[:24]}
    known = {answer for each in asked for answer in each.answers}
    assert sum(text in known for _, text in said) >= 12
    if encoder is not None:
        before = export.load(llm_home / "encoder").vit.state_dict()
        after = encoders.load(uri, OPTIONS).vit.state_dict()
        assert any(not torch.equal(weight, after[name]) for name, weight in before.items())
    held = json.loads((tmp_path / "llm/tokenizer.json").read_text())
    assert len(held["model"]["vocab"]) == opened.chat.vocabulary


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"llm": {}}, "give one of llm.source"),
        ({"llm": {"source": "x", "tune": "some"}}, "llm.tune is 'some'"),
        ({"llm": {"source": "nowhere/at/all"}}, "no such folder"),
        ({"llm": {**NEW, "tune": "lora"}}, "use llm.tune=full"),
        ({"scene": {"tokens": "pixels"}}, "scene.tokens is 'pixels'"),
        ({"scene": {"tokens": "none"}}, "train.features is given, and scene.tokens is none"),
        ({"scene": {"tokens": "voxels", "cell_m": 0.0}}, "scene.cell_m is 0.0"),
        ({"chat": {"situations": "all"}}, "chat.situations is 'all'"),
        ({"chat": {"packed_tokens": 40}}, "chat.packed_tokens has 40"),
        ({"train": {}}, "train.conversations is empty"),
        ({"encoder": {"source": "encoder"}}, "train.features is given, and the encoder is trained"),
    ],
)
def test_mistakes_are_one_line(
    llm_home: Path, tmp_path: Path, changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(llm_home, tmp_path, **changes) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_features_without_patches_and_a_model_without_a_template_are_refused(
    llm_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = job_of(llm_home, tmp_path)["train"] | {"features": [str(llm_home / "features")]}
    assert run(llm_home, tmp_path, train=train) == 2
    assert "with patches=true" in capsys.readouterr().err
    shutil.copytree(llm_home / "model", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").unlink()
    source = {"source": str(tmp_path / "model"), "model": "vision_language"}
    assert run(llm_home, tmp_path, llm=source) == 2
    assert "has no chat template" in capsys.readouterr().err
