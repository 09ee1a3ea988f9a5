"""Tiny heads: a text tower of a few words, questions about scenes, a stage that trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from jobs.cli import main
from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders
from jobs.pretrain.config import PretrainJob
from plinth.storage import StorageOptions
from poma3d import export
from poma3d.heads.config import HeadConfig, HeadSceneConfig, ProtocolConfig
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import TextTower
from poma3d.network.encoder import PointMapEncoder
from poma3d.pretrained.config import TeacherConfig
from poma3d.seen.scenes import SeenScenes
from tests.helpers import tiny
from tests.helpers.downstream.scenes import MemoryPoints, MemoryScenes
from tests.helpers.tiny_jobs import write

SHAPE = QuestionShape(views=4, embedding=10, texts=3, tokens=6, answers=2)
CLASSES, WORDS = 7, 20
SCENES = 3
CELL_WIDTH = 12
"""Of the stored patch tokens of a tiny head that sees cells."""


def tower(train: bool = True) -> TextTower:
    """A BERT of one layer, without dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=WORDS, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=8,
        )  # fmt: skip
        return TextTower(BertModel(config), train, dropout=False)


def stage(train: bool = True, dropout: float = 0.3, **changes: Any) -> QuestionStage:
    """A tiny stage; `changes` are of its head's config."""
    head = HeadConfig(pool_hidden=8, pool_width=16, hidden=24, dropout=dropout, **changes)
    return QuestionStage(head, ProtocolConfig(), tower(train), SHAPE, CLASSES, seed=3)


def encoder_stage(dropout: float = 0.3, lr_scale: float = 0.5) -> QuestionStage:
    """A tiny stage whose encoder is trained, on `SCENES` scenes."""
    scenes = MemoryScenes(SCENES)
    vit = tiny.tower().build()
    seen = SeenScenes(
        HeadSceneConfig(), scenes, scenes.shape.views, tiny.JOINT, encoder=PointMapEncoder(vit),
        samples=scenes.shape, encoder_lr_scale=lr_scale,
    )  # fmt: skip
    shape = replace(SHAPE, views=scenes.shape.views, embedding=tiny.JOINT, by_scene=True)
    head = HeadConfig(pool_hidden=8, pool_width=16, hidden=24, dropout=dropout)
    return QuestionStage(head, ProtocolConfig(), tower(), shape, CLASSES, seed=3, seen=seen)


def cell_stage(trained: bool = False, dropout: float = 0.3) -> QuestionStage:
    """A tiny stage whose head sees cells, guided by the question: of features, or of an encoder that is
    trained."""
    tower_of_views = tiny.tower()
    patches = tower_of_views.shape.patches
    store = MemoryPoints(SCENES, patches, 0 if trained else CELL_WIDTH)
    samples = store.inner.shape
    encoder = PointMapEncoder(tower_of_views.build()) if trained else None
    if encoder is not None:
        encoder.vit.head.requires_grad_(False)
        encoder.vit.norm.requires_grad_(False)
    scene = HeadSceneConfig(tokens="voxels", cell_m=0.5, max_voxels=64)
    width = tower_of_views.shape.width if trained else CELL_WIDTH
    seen = SeenScenes(
        scene, store, samples.views, width, patches, encoder, samples if trained else None,
        encoder_lr_scale=0.5,
    )  # fmt: skip
    shape = replace(SHAPE, views=samples.views, embedding=width, by_scene=True, posed=True)
    head = HeadConfig(pool_hidden=8, pool_width=16, hidden=24, dropout=dropout, attention="guided")
    return QuestionStage(head, ProtocolConfig(), tower(), shape, CLASSES, seed=3, seen=seen)


def make_features(folder: Path) -> dict[str, Any]:
    """`folder`/encoder (untrained), /features of `folder`/rooms, their questions and a text tower; the
    features job."""
    source = TeacherConfig(source=str(folder / "teacher"))
    shape = open_dataset(str(folder / "rooms"), StorageOptions()).shape
    export.save(encoders.untrained(PretrainJob(teacher=source), shape), folder / "encoder")
    job = {
        "kind": "features",
        "encoder": str(folder / "encoder"),
        "data": str(folder / "rooms"),
        "output": str(folder / "features"),
        "workers": 0,
    }
    assert main(["features", write(folder / "features.yaml", job)]) == 0
    assert main(["questions", str(folder / "rooms"), "--tower", str(folder / "tower")]) == 0
    return job


def finetune_job(folder: Path, **changes: Any) -> dict[str, Any]:
    """A few steps on what `make_features` made, in this process."""
    split = {
        "annotations": [str(folder / "rooms/questions.jsonl")],
        "features": [str(folder / "features")],
    }
    return {
        "kind": "finetune",
        "name": "qa",
        "output": str(folder / "runs"),
        "qa": {"task": "rooms", "question_types": "given"},
        "train": split,
        "val": split,
        "text": {"source": str(folder / "tower")},
        "head": {"pool_hidden": 16, "pool_width": 16, "hidden": 32},
        "heads": {
            "steps": 4,
            "global_batch_size": 8,
            "micro_batch_size": 4,
            "data": {"lanes": 2, "window_row_groups": 2, "reader": "threads"},
        },
        "optim": {"lr": 1e-2, "warmup_steps": 1},
        "checkpoint": {"every_steps": 2},
        "evaluate": {"bootstrap": {"draws": 20}},
        "fit": {"workers": 0},
        **changes,
    }
