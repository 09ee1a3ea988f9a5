"""Training while the disk for files on their way is really full."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.observe.metrics import read_lines
from plinth.storage import Storage
from tests.helpers import full_disk
from tests.helpers.toy.full_disk import EVERY, FULL_FROM, FULL_UNTIL, STEPS

pytestmark = pytest.mark.slow


def test_training_goes_on_while_the_disk_is_full(tmp_path: Path) -> None:
    told = full_disk.run(tmp_path, "tests.helpers.toy.full_disk")
    if told is None:
        pytest.skip("this machine mounts nothing for its users")
    found = [(line[0], int(line[1])) for line in told if line[0] in ("checkpoint", "last")]
    assert found[-1] == ("last", STEPS - 1)
    committed = {step // EVERY for kind, step in found if kind == "checkpoint"}
    assert committed >= {1, *range(FULL_UNTIL + 2, STEPS // EVERY + 1)}
    assert not committed & set(range(FULL_FROM + 1, FULL_UNTIL)), "those of a full disk do not count"
    lines = read_lines(Storage.from_uri(tmp_path / "big" / "run" / "toy"))
    assert [line["step"] for line in lines] == list(range(STEPS)), "and no line is lost"
