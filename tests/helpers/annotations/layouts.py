"""Writes small annotation files in the layouts of the public benchmarks. The rows are made up."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SQA3D_ROWS = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "sqa3d"
"""A few real rows of SQA3D beside the repository; tests that need them skip where they are absent."""
FIRST_ID = 220_602_000_000
"""SQA3D's ids are of this size."""


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """JSON lines; a text is written as it stands."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


# -- SQA3D ------------------------------------------------------------------------------------------------


def sqa3d_question(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "scene_id": f"scene{number:04d}_00",
        "situation": "I am sitting on the bed.",
        "alternative_situation": ["I lie in bed.", "I just woke up in bed."],
        "question": "What is in front of me?",
        "question_id": FIRST_ID + number,
        **changed,
    }


def sqa3d_answer(number: int, answer: str = "desk", **changed: Any) -> dict[str, Any]:
    return {
        "scene_id": f"scene{number:04d}_00",
        "question_type": "N/A",
        "answer_type": "other",
        "question_id": FIRST_ID + number,
        "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
        "rotation": {"_x": 0, "_y": 0, "_z": math.sin(0.5), "_w": math.cos(0.5)},
        "position": {"x": 0.5, "y": -1, "z": 0},
        **changed,
    }


def write_sqa3d(
    folder: Path, questions: Sequence[Any], answers: Sequence[Any] | None, split: str = "val"
) -> list[Path]:
    """The two files of a split; the questions alone where there are no answers."""
    head = {"info": {"version": "1.0"}, "license": {}, "data_type": "scannet", "data_subtype": "v2"}
    asked = {**head, "task_type": "Situated question answering", "questions": questions}
    paths = [write_json(folder / f"v1_balanced_questions_{split}_scannetv2.json", asked)]
    if answers is not None:
        path = folder / f"v1_balanced_sqa_annotations_{split}_scannetv2.json"
        paths.append(write_json(path, {**head, "annotations": answers}))
    return paths


def sqa3d(folder: Path, rows: int = 3, split: str = "val") -> list[Path]:
    """A good split; the annotations stand in another order than the questions."""
    numbers = range(rows)
    questions = [sqa3d_question(number) for number in numbers]
    return write_sqa3d(folder, questions, [sqa3d_answer(number) for number in reversed(numbers)], split)


def situation(number: int, **changed: Any) -> dict[str, Any]:
    text = "I am standing by the door."
    return {"scene_id": "scene0000_00", "situation": text, "situation_id": FIRST_ID + number, **changed}


def situated_pose(number: int, **changed: Any) -> dict[str, Any]:
    row = sqa3d_answer(0)
    kept = {key: row[key] for key in ("scene_id", "position", "rotation")}
    return {**kept, "situation_id": FIRST_ID + number, **changed}


def write_localisation(folder: Path, poses: Sequence[Any], situations: Sequence[Any] | None) -> list[Path]:
    paths = [write_json(folder / "v1_balanced_localization_val.json", {"annotations": poses})]
    if situations is not None:
        paths.append(write_json(folder / "v1_balanced_situations_val.json", {"situations": situations}))
    return paths


# -- the others -------------------------------------------------------------------------------------------


def scanqa_row(number: int, *answers: str, **changed: Any) -> dict[str, Any]:
    return {
        "scene_id": f"scene{number:04d}_00",
        "question_id": f"val-scene{number:04d}-0",
        "question": "What color is the chair?",
        "answers": list(answers or ("brown", "dark brown")),
        "object_ids": [number],
        "object_names": ["chair"],
        **changed,
    }


def hypo3d_released() -> dict[str, Any]:
    """Two scenes, one of 3RScan; the second question is of two types."""
    uuid = "0a4b8ef6-a83a-21f2-8672-dce34dd0d7ca"

    def asked(number: int, kind: str, answer: str) -> dict[str, str]:
        question = f"Where is lamp {number} now?"
        return {"question": question, "answer": answer, "question_type": kind, "question_id": f"{number:05d}"}

    moved = {"context_change": "The lamp was moved to the door.", "change_type": "Movement Change"}
    gone = {"context_change": "The rug was removed.", "change_type": "Removal Change"}
    return {
        "scene0000_00": [
            {**moved, "questions_answers": [asked(0, "Direction", "left"), asked(1, "Scale Direction", "2")]}
        ],
        uuid: [{**gone, "questions_answers": [asked(2, "Semantic", "floor")]}],
    }


def hypo3d_converted(folder: Path) -> list[Path]:
    question = {
        "scene_id": "scene0000_00", "question_id": "00007", "context_change": "The lamp was moved.",
        "orientation": "The desk was located at the front of the scene.", "question": "Where is the lamp?",
    }  # fmt: skip
    answer = {"scene_id": "scene0000_00", "question_id": "00007", "answers": [{"answer": "back left"}]}
    return [
        write_json(folder / "hypo3d_test.json", {"questions": [question]}),
        write_json(folder / "hypo3d_test_annotations.json", {"annotations": [answer]}),
    ]


def msnn_sample(four: Sequence[Any], eight: Sequence[Any], **changed: Any) -> dict[str, Any]:
    return {
        "location": [1.0, 2.0, 0.5],
        "orientation": [0, 0, math.sin(0.25), math.cos(0.25)],
        "situation_multimodal": "There is <desk-7-IMG> ahead.",
        "situation_text": "There is a desk ahead.",
        "interaction": "I want to reach the bed.",
        "instruction": "Turn.",
        "action": {"four_direction": list(four), "eight_direction": list(eight), "angle": 60.4},
        "insts": ["7", "12"],
        "scan_id": "scene0000_00",
        **changed,
    }


def msnn_converted(folder: Path, *answers: str) -> list[Path]:
    """One row per answer."""
    asked = [
        {
            "scan_id": "scene0000_00", "question_id": number, "situation_text": "A desk is ahead.",
            "interaction": "I want to sleep.", "question": "What action should I take next step?",
        }
        for number in range(len(answers))
    ]  # fmt: skip
    said = [
        {"scan_id": "scene0000_00", "question_id": number, "answers": [{"answer": answer}]}
        for number, answer in enumerate(answers)
    ]
    return [
        write_json(folder / "msnn_test_four_direction.json", asked),
        write_json(folder / "msnn_test_four_direction_annotations.json", {"annotations": said}),
    ]


def scanrefer_row(scene: str, target: str, annotation: str, **changed: Any) -> dict[str, Any]:
    return {
        "scene_id": scene,
        "object_id": target,
        "object_name": "trash_can",
        "ann_id": annotation,
        "description": "this is a trash can. it is by the door.",
        "token": ["this", "is", "a", "trash", "can", "."],
        **changed,
    }


def camera_row(scene_id: str, object_id: str, annotation: str, **camera: Any) -> dict[str, Any]:
    """A camera at (1, 1, 1) that looks along y, with three.js's angles of that."""
    looking = {"position": [1.0, 1.0, 1.0], "rotation": [math.pi / 2, 0.0, 0.0], "lookat": [1.0, 3.0, 1.0]}
    return {
        "scene_id": scene_id,
        "object_id": object_id,
        "object_name": "trash_can",
        "ann_id": annotation,
        "id": f"{scene_id}-{object_id}_{annotation}",
        "camera": {**looking, **camera},
    }


def nr3d_row(number: int, **changed: Any) -> dict[str, str]:
    """A row as a table has it: texts throughout."""
    return {
        "assignmentid": str(number),
        "stimulus_id": "scene0000_00-trash_can-2-7-9",
        "utterance": "The trash can by the door.",
        "correct_guess": "True",
        "scan_id": "scene0000_00",
        "instance_type": "trash can",
        "target_id": "7",
        "tokens": "['the', 'trash', 'can', 'by', 'the', 'door', '.']",
        "mentions_target_class": "True",
        **changed,
    }


def sr3d_row(**changed: Any) -> dict[str, str]:
    """Columns in another order than Nr3D's, and some of its own."""
    return {
        "scan_id": "scene0000_00",
        "target_id": "7",
        "distractor_ids": "[9]",
        "utterance": "the trash can that is near the door",
        "stimulus_id": "scene0000_00-trash_can-2-7-9",
        "reference_type": "closest",
        "instance_type": "trash can",
        "tokens": "['the', 'trash', 'can', 'that', 'is', 'near', 'the', 'door']",
        "mentions_target_class": "TRUE",
        "correct_guess": "TRUE",
        **changed,
    }


# -- scans ------------------------------------------------------------------------------------------------


def write_ply(path: Path, points: np.ndarray, layout: str = "binary_little_endian") -> Path:
    """A mesh of ScanNet's header: float x, y, z and a colour per vertex."""
    header = [
        "ply", f"format {layout} 1.0", "comment made up", f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"), *(f"property uchar {c}" for c in ("red", "alpha")),
        "element face 0", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    if layout == "ascii":
        body = "".join(f"{x} {y} {z} 1 255\n" for x, y, z in points).encode()
    else:
        order = "<" if layout == "binary_little_endian" else ">"
        table = np.zeros(len(points), [(n, f"{order}f4") for n in "xyz"] + [(n, "u1") for n in ("r", "a")])
        for column, axis in enumerate("xyz"):
            table[axis] = points[:, column]
        body = table.tobytes()
    path.write_bytes("\n".join(header).encode() + b"\n" + body)
    return path


def write_scan(
    folder: Path, scene_id: str, alignment: np.ndarray | None, points: np.ndarray | None = None
) -> None:
    """SCAN/SCAN.txt, with axisAlignment where there is one, and the mesh."""
    scan = folder / scene_id
    scan.mkdir(parents=True)
    line = "" if alignment is None else f"axisAlignment = {' '.join(map(str, alignment.ravel()))}\n"
    (scan / f"{scene_id}.txt").write_text(f"{line}sceneType = Bedroom\n")
    if points is not None:
        write_ply(scan / f"{scene_id}_vh_clean_2.ply", points)
