"""`poma shards preview` of what `poma lift` built: accepted beside rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.cli import main
from jobs.lift import command as lift
from jobs.lift.config import LiftJob
from jobs.lift.contact_sheet import EXAMPLES, table_lines
from jobs.lift.versions import filter_examples
from plinth import config
from plinth.storage import Storage
from tests.helpers.lift.image_sets import encoded, lift_job, members, photo, write_photos_tar, write_tar


def job(output: Path, tar: Path) -> LiftJob:
    return config.build(LiftJob, [("job", lift_job(output, [{"uri": str(tar)}]))])


def test_preview_shows_what_was_accepted_beside_what_was_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    write_photos_tar(tmp_path / "first.tar", range(10))
    lift.lift(job(out, tmp_path / "first.tar"))
    tiny = members("t", photo(20)) | {"t.jpg": encoded(np.zeros((20, 20, 3), np.uint8), "JPEG")}
    flat = photo(21)
    flat.depth = encoded(np.full((72, 96), 2000, np.uint16), "PNG")
    write_tar(tmp_path / "more.tar", tiny | members("f", flat) | members("g", photo(22)))
    lift.lift(job(out, tmp_path / "more.tar"))
    capsys.readouterr()
    assert main(["shards", "preview", f"{out}#1", "--samples", "1", "--out", str(sheet)]) == 0
    assert "version 1: 10 accepted, 0 rejected" in capsys.readouterr().out
    plain = np.asarray(Image.open(sheet))
    assert main(["shards", "preview", str(out), "--samples", "1", "--out", str(sheet)]) == 0
    assert "version 2: 1 accepted, 2 rejected" in capsys.readouterr().out
    both = np.asarray(Image.open(sheet))
    assert len(both) > len(plain), "a row of pictures for each reason"
    gates = np.asarray(Image.open(out / "versions" / "000002" / "gates.png"))
    np.testing.assert_array_equal(both[-len(gates) :, : gates.shape[1]], gates)
    assert both[-len(gates) :, gates.shape[1] :].min() < 128, "the table stands beside the pictures"
    found = filter_examples(Storage.from_uri(out), 2)
    assert found is not None
    table = table_lines(found[1], 1)
    assert table[0] == "1 accepted, 2 rejected"
    assert table[2:4] == ["1 x tiny image", "    20 x 20   more.tar at byte 512"]
    assert table[5] == "1 x flat depth"


def test_a_long_table_is_cut() -> None:
    rows = [{"reason": "tiny image", "value": "", "place": f"a/{i}.jpg"} for i in range(EXAMPLES + 3)]
    assert table_lines(rows, 5)[-2:] == [f"    -   {EXAMPLES - 1}.jpg", "    and 3 more"]
    assert table_lines([], 5) == ["5 accepted, 0 rejected"]
