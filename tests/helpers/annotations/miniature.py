"""Everything that the commands of docs/benchmarks.md name, small and made up: files, scans, models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.common.datasets import open_dataset
from jobs.evaluate import encoders
from jobs.pretrain.config import PretrainJob
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.data.shards import RowGroupReader, write_shard
from plinth.storage import Storage, StorageOptions
from poma3d import export
from poma3d.annotations.read import read
from poma3d.pretrained.config import TeacherConfig
from tests.helpers import tiny
from tests.helpers.annotations import layouts
from tests.helpers.scans import ALIGNMENT, room, write_scannet

SCENES = [f"scene{number:04d}_00" for number in range(4)]
OF_3RSCAN = "0a4b8ef6-a83a-21f2-8672-dce34dd0d7ca"
VIEWS, SIDE = 2, tiny.IMAGE_SIZE


def write_files(home: Path) -> None:
    """Scans as exported, a teacher, and the published files, in the folders that the page names."""
    for number, scene in enumerate(SCENES):
        write_scannet(home / "scans", scene, room(number, views=VIEWS, size=SIDE), ALIGNMENT)
    tiny.save_teacher(home / "teacher", tiny.clip_model())
    for name in ("scanqa", "sqa3d", "hypo3d", "msnn", "scanrefer", "referit3d", "followup", "answers"):
        (home / name).mkdir()
    _scanqa(home / "scanqa")
    for split in ("train", "val", "test"):
        layouts.sqa3d(home / "sqa3d", len(SCENES), split)
    _dictionary(home / "sqa3d", "desk", "bed", "u")
    _hypo3d(home / "hypo3d")
    _dictionary(home / "hypo3d", "back left", "left")
    _msnn(home / "msnn")
    _utterances(home)
    types = {scene: ("Bedroom", "Kitchen")[number % 2] for number, scene in enumerate(SCENES)}
    layouts.write_json(home / "room_types.json", types)
    _answers(home)


def write_encoder(home: Path) -> None:
    """`runs/poma3d`: an untrained encoder for the data set, exported."""
    shape = open_dataset(str(home / "data/scannet"), StorageOptions()).shape
    teacher = TeacherConfig(source=str(home / "teacher"))
    export.save(encoders.untrained(PretrainJob(teacher=teacher), shape), home / "runs/poma3d")


def write_other_features(home: Path) -> None:
    """`features/3rscan`: one scene with a name of 3RScan, of the same encoder."""
    old, new = Storage.from_uri(home / "features/scannet"), Storage.from_uri(home / "features/3rscan")
    manifest = manifests.load(old)
    table = RowGroupReader(old).read_shard(manifest.shards[0]).slice(0, 1)
    for name in ("scene_id", "sample_id"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array([OF_3RSCAN], pa.string()))
    manifests.commit(new, Manifest([write_shard(new, "000000", table)], manifest.attributes))


def _dictionary(folder: Path, *answers: str) -> None:
    numbered = {answer: number for number, answer in enumerate(answers)}
    both = [numbered, {str(number): answer for answer, number in numbered.items()}]
    layouts.write_json(folder / "answer_dict.json", both)


def _scanqa(folder: Path) -> None:
    for split in ("train", "val"):
        rows = [
            layouts.scanqa_row(number, *answers, question_id=f"{split}-{scene.partition('_')[0]}-0")
            for number, (scene, answers) in enumerate(
                zip(SCENES, (("brown", "dark brown"), ("2",), ("brown",), ("left",)), strict=True)
            )
        ]
        layouts.write_json(folder / f"ScanQA_v1.0_{split}.json", rows)


def _hypo3d(folder: Path) -> None:
    asked, said = (json.loads(path.read_text()) for path in layouts.hypo3d_converted(folder))
    ids = [{"scene_id": scene, "question_id": f"{n:05d}"} for n, scene in enumerate([*SCENES, OF_3RSCAN])]
    for split in ("train", "test"):
        questions = [{**asked["questions"][0], **each} for each in ids]
        annotations = [{**said["annotations"][0], **each} for each in ids]
        layouts.write_json(folder / f"hypo3d_{split}.json", {"questions": questions})
        layouts.write_json(folder / f"hypo3d_{split}_annotations.json", {"annotations": annotations})


def _msnn(folder: Path) -> None:
    files = layouts.msnn_converted(folder, "move forward", "turn left", "turn right", "move backward")
    for path in files:
        shutil.copy(path, folder / path.name.replace("_test_", "_train_"))
    directions = [([0, "move forward"], [0, "move forward"]), ([1, "turn left"], [1, "turn to foward left"])]
    raw = {
        scene: {str(n): layouts.msnn_sample(*each, scan_id=scene) for n, each in enumerate(directions)}
        for scene in SCENES
    }
    for split in ("train", "val"):
        layouts.write_json(folder / f"msnn_scannet_{split}.json", raw)


def _utterances(home: Path) -> None:
    rows = [layouts.scanrefer_row(scene, "7", str(n)) for scene in SCENES for n in range(2)]
    layouts.write_json(home / "scanrefer/ScanRefer_filtered_val.json", rows)
    layouts.write_json(
        home / "scanrefer/cameras.json", [layouts.camera_row(scene, "7", "0") for scene in SCENES]
    )
    tables: dict[str, list[dict[str, str]]] = {"nr3d": [], "sr3d": []}
    for number, scene in enumerate(SCENES):
        of = {"scan_id": scene, "stimulus_id": f"{scene}-trash_can-2-7-9"}
        tables["nr3d"].append(layouts.nr3d_row(number, **of))
        tables["sr3d"].append(layouts.sr3d_row(**of))
    for name, table in tables.items():
        layouts.write_table(home / f"referit3d/{name}_test.csv", table)
    lines: list[dict[str, Any]] = [
        {"scan_id": scene, "utterance": f"a chair by the table {n}", "view_ground_truth": [n % VIEWS]}
        for scene in SCENES
        for n in range(6)
    ]
    for name in ("scanrefer_retrieval", "nr3d_retrieval", "sr3d_retrieval", "scanrefer_grounding"):
        layouts.write_lines(home / f"followup/{name}.jsonl", lines)


def _answers(home: Path) -> None:
    """A model's answers to every question, one of them wrong."""
    asked: dict[str, tuple[str, Sequence[str], int]] = {
        "scanqa": ("scanqa", ["scanqa/ScanQA_v1.0_val.json"], 4),
        "sqa3d": (
            "sqa3d",
            [f"sqa3d/v1_balanced_{n}_test_scannetv2.json" for n in ("questions", "sqa_annotations")],
            4,
        ),
        "hypo3d": ("hypo3d", ["hypo3d/hypo3d_test.json", "hypo3d/hypo3d_test_annotations.json"], 4),
        "msnn4": ("msnn", ["msnn/msnn_scannet_val.json"], 4),
        "msnn8": ("msnn", ["msnn/msnn_scannet_val.json"], 8),
    }
    for name, (kind, files, directions) in asked.items():
        questions = read(kind, [home / file for file in files], directions=directions).questions
        rows = [
            {"question_id": each.question_id, "answer": each.answers[0] if n else "none of these"}
            for n, each in enumerate(questions)
        ]
        layouts.write_lines(home / f"answers/{name}.jsonl", rows)
