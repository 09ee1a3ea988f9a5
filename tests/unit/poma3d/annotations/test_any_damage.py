"""Whatever value stands where another should, a bad row is named or the file refused, and that is all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poma3d.annotations.poses import ScanFrame, camera_of, moved_to_world
from poma3d.annotations.read import read
from poma3d.annotations.rows import Annotations
from poma3d.annotations.scoring.predictions import Answered
from poma3d.annotations.scoring.score import Options, score_answers
from poma3d.annotations.vocabulary import read_vocabulary
from tests.helpers.annotations.layouts import (
    camera_row,
    hypo3d_released,
    msnn_sample,
    scanqa_row,
    scanrefer_row,
    situated_pose,
    situation,
    sqa3d_answer,
    sqa3d_question,
    write_json,
)

VALUES: tuple[Any, ...] = (None, True, 0, -1, 2.5, 1e400, "", "x", [], ["x"], [None], {}, {"x": None})
UTTERANCE = {"scan_id": "scene0000_00", "utterance": "the can", "target_id": 7, "instance_type": "can"}
TWO = ({"u": 0, "desk": 1}, {"0": "u", "1": "desk"})
FILES: dict[str, list[Any]] = {
    "scanqa": [[scanqa_row(0), scanqa_row(1)]],
    "sqa3d": [
        {"questions": [sqa3d_question(0), sqa3d_question(1)]},
        {"annotations": [sqa3d_answer(0), sqa3d_answer(1)]},
    ],
    "hypo3d": [hypo3d_released()],
    "msnn": [{"scene0000_00": {str(n): msnn_sample([1, "turn left"], [2, "turn left"]) for n in range(2)}}],
    "scanrefer": [[scanrefer_row("scene0000_00", "1", str(n)) for n in range(2)]],
    "nr3d": [[{**UTTERANCE, "tokens": ["the", "can"], "correct_guess": True}, {**UTTERANCE, "tokens": []}]],
    "retrieval": [[{**UTTERANCE, "view_ground_truth": [1, 2]}, dict(UTTERANCE)]],
    "localisation": [
        {"annotations": [situated_pose(0), situated_pose(1)]},
        {"situations": [situation(0), situation(1)]},
    ],
    "cameras": [[camera_row("scene0000_00", "1", str(n)) for n in range(2)]],
}


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values below a node, the node itself first."""
    yield path
    for key, below in (
        node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    ):
        yield from places(below, (*path, key))


def damaged(content: Any) -> Iterator[Any]:
    """The content with one value replaced, or one key left out, at a time."""
    for path in places(content):
        if not path:
            yield from VALUES
            continue
        *above, last = path
        for value in (*VALUES, KeyError):
            changed = copy.deepcopy(content)
            node = changed
            for key in above:
                node = node[key]
            if value is KeyError:
                del node[last]
            else:
                node[last] = value
            yield changed


def use(found: Annotations) -> None:
    """What a reader lets through, the rest of the package takes."""
    scan = ScanFrame(None, None)
    for row in found.questions:
        row.asked("")
        if row.position is not None and row.frame == "msnn":
            camera_of(row, None)
    for text in found.camera_texts:
        if text.frame == "scanrefer":
            moved_to_world(text, scan)
    if any(row.answers for row in found.questions) and found.kind != "msnn":
        predictions = {row.question_id: Answered(("x",), False, "p, line 1") for row in found.questions}
        score_answers(found.kind, found.questions, predictions, Options())


@pytest.mark.parametrize("name", FILES)
def test_any_value_anywhere(name: str, tmp_path: Path) -> None:
    kind = "localisation" if name == "cameras" else name
    contents = FILES[name]
    paths = [write_json(tmp_path / f"{number}.json", content) for number, content in enumerate(contents)]
    assert not read(kind, paths).problems
    tried = 0
    for path, content in zip(paths, contents, strict=True):
        for changed in damaged(content):
            path.write_text(json.dumps(changed))
            tried += 1
            outcome(lambda: use(read(kind, paths)), changed)
        path.write_text(json.dumps(content))
    assert tried > 100


def test_a_bad_row_of_cameras_costs_no_other(tmp_path: Path) -> None:
    rows, texts = (
        [row("scene0000_00", "1", str(n)) for n in range(3)] for row in (camera_row, scanrefer_row)
    )
    paths = [write_json(tmp_path / f"{number}.json", content) for number, content in enumerate((rows, texts))]
    tried = 0
    for changed in damaged(rows[1]):
        paths[0].write_text(json.dumps([rows[0], changed, rows[2]]))
        found = read("localisation", paths)
        kept = {row.text_id for row in found.camera_texts}
        assert {"scene0000_00-1_0", "scene0000_00-1_2"} <= kept, changed
        assert all(problem.row for problem in found.problems), changed
        tried += 1
    assert tried > 100


def test_any_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    tried = refused = 0
    for changed in damaged(list(TWO)):
        path.write_text(json.dumps(changed))
        tried += 1
        refused += outcome(lambda: read_vocabulary(path), changed)
    assert tried > 90
    assert refused > 90


def outcome(run: Callable[[], object], changed: Any) -> bool:
    """Whether it is refused. Anything but a ValueError is a fault of ours."""
    try:
        run()
    except ValueError:
        return True
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error} at {json.dumps(changed)[:600]}")
    return False
