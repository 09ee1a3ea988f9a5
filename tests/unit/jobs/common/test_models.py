from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.models import fetch, settle_revisions
from plinth.storage import StorageOptions


def test_a_recipe_stored_before_revisions_covered_the_tokenizer_is_that_of_the_same_weights() -> None:
    now = {"lifter": {"kind": "vggt", "revision": "aa-11"}, "teacher": {"name": "t", "revision": "bb-22"}}
    older = {"lifter": {"kind": "vggt", "revision": "aa"}, "teacher": {"name": "t", "revision": "bb"}}
    assert settle_revisions(older, now) == now
    for stored in ("cc", "bb-33"):
        other = {**older, "teacher": {"name": "t", "revision": stored}}
        assert settle_revisions(other, now)["teacher"]["revision"] == stored
    assert settle_revisions({"teacher": None}, now) == {"teacher": None}
    assert settle_revisions(None, now) is None


def test_what_is_fetched_is_as_readable_as_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMA3D_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    folder = Path(fetch(f"file://{tmp_path}/model", StorageOptions()))
    assert (folder / "config.json").read_text() == "{}"
    assert folder.stat().st_mode == folder.parent.stat().st_mode
