"""The report: complete, escaped, and without any resource outside the file."""

import base64
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo.report import (
    Example,
    Examples,
    Found,
    FoundBy,
    Picture,
    Report,
    data_uri,
    thumbnail,
    write_report,
)
from jobs.display.figures import Curve
from jobs.evaluate.tables import Row, Table
from plinth.observe.ledger import CATEGORIES, LedgerSummary
from poma3d.evaluate.bootstrap import Estimate
from tests.helpers.snapshots import assert_snapshot

IMAGE = np.full((8, 16, 3), 77, np.uint8)
TABLE = Table(
    "Retrieval",
    ["R@1", "R@5"],
    [
        Row("chance", "by lot", [0.008, 0.039]),
        Row("model", "geometry", [Estimate(0.0625, 0.03, 0.11, np.zeros(1)), None], strong=True),
    ],
    "over rooms",
)


def full_report() -> Report:
    found = [Found(f"room-{i}", i + 1, 0.5 - i / 10, i == 1, IMAGE) for i in range(5)]
    example = Example("two chairs & a table", [FoundBy("model", 2, found), FoundBy("teacher", 1, found[1:2])])
    return Report(
        title="A <demo> run",
        status="It learned",
        good=True,
        facts={"time": "9 min & 5 s"},
        tables=[TABLE],
        more_tables=[TABLE],
        curves={
            "main": [Curve("loss", "step", {"view": ([0, 1], [2.0, 1.0]), "scene": ([0, 1], [3.0, 1.0])})]
        },
        pictures=[Picture(IMAGE, "point maps")],
        examples=Examples([example], "1 of 9 captions", a_hit=example),
        ledger=LedgerSummary(
            wall_s=10, seconds=dict.fromkeys(CATEGORIES, 0.0) | {"productive": 8, "idle": 2}
        ),
        room="<p>a page</p>",
        room_still=IMAGE,
        room_file="room.html",
        notes=["colour is the teacher's cue"],
        config="seed: 0  # <x>\n",
    )


def test_full_report(tmp_path: Path) -> None:
    path = write_report(full_report(), tmp_path / "run" / "report.html")
    page = path.read_text()
    assert not re.findall(r"<script src|<link|@import|url\(['\"]?http", page)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', page))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    parts = ["A room that", "What the model sees", "Retrieval", "two chairs", "Training: main"]
    assert [page.index(part) for part in parts] == sorted(page.index(part) for part in parts)
    assert_snapshot(page, Path(__file__).with_name("report.html"))


def test_names_and_captions_are_shown_as_text(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    report = Report(
        title=script,
        status=script,
        good=True,
        summary=script,
        facts={script: script},
        tables=[Table(script, [script], [Row(script, script, [0.5])], script)],
        more_tables=[Table(script, [script], [Row(script, script, [0.5])], script)],
        curves={script: [Curve(script, script, {script: ([0], [0])})]},
        pictures=[Picture(IMAGE, script)],
        examples=Examples(
            [Example(script, [FoundBy(script, 1, [Found(script, 1, 0.5, True, IMAGE)])])], script
        ),
        room=script,
        room_file=script,
        notes=[script],
        config=script,
    )
    page = write_report(report, tmp_path / "report.html").read_text()
    assert script not in page
    assert page.count(html.escape(script)) == 30


def test_empty_parts_leave_no_heading(tmp_path: Path) -> None:
    page = write_report(Report("bare", "nothing yet", good=False), tmp_path / "r.html").read_text()
    assert "<h2>" not in page
    assert "<script" not in page
    assert "<details>" not in page
    assert 'class="status fair"' in page


def test_pictures_survive_the_embedding() -> None:
    decoded = Image.open(io.BytesIO(base64.b64decode(data_uri(IMAGE).split(",")[1])))
    assert np.array_equal(np.asarray(decoded), IMAGE)


@pytest.mark.parametrize("size", [(8, 16), (300, 200), (1, 500)])
def test_thumbnails_keep_their_shape(size: tuple[int, int]) -> None:
    small = thumbnail(np.zeros((*size, 3), np.uint8))
    assert max(small.shape[:2]) == 112
    assert min(small.shape[:2]) >= 1
