"""A file of another split than its name says is found by its rows and scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from poma3d.annotations import published
from poma3d.annotations.published import SPLITS, Split, named_split, split_of
from poma3d.annotations.read import read
from tests.helpers.annotations.layouts import sqa3d, sr3d_row, write_table


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("v1_balanced_questions_val_scannetv2.json", "val"),
        ("ScanQA_v1.0_test_w_obj.json", "test_w_obj"),
        ("ScanQA_v1.0_test_wo_obj.json", "test_wo_obj"),
        ("ScanRefer_filtered_train.json", "train"),
        ("validity.json", ""),
        ("latest.json", ""),
    ],
)
def test_splits_by_name(name: str, split: str) -> None:
    assert named_split(Path("val") / name) == split


def test_counts_tell_all_splits_apart() -> None:
    assert len({(each.kind, each.rows, each.scenes) for each in SPLITS}) == len(SPLITS)
    assert split_of("sqa3d", 3519, 67) == "test"
    assert split_of("sqa3d", 3519, 66) == ""


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of a few rows in place of the published ones."""
    splits = (Split("sqa3d", "val", 2, 2), Split("sqa3d", "test", 3, 3), Split("sr3d", "test", 4, 2))
    monkeypatch.setattr(published, "SPLITS", splits)


@pytest.mark.usefixtures("small_splits")
def test_the_swapped_splits_of_the_first_commit(tmp_path: Path) -> None:
    found = read("sqa3d", sqa3d(tmp_path, 3, split="val"))
    [problem] = found.problems
    assert problem.row == ""
    assert "named val, but it has the 3 rows in 3 scenes of the published test split" in problem.reason
    assert "swapped" in problem.reason
    assert list(found.splits.values()) == ["test"]


@pytest.mark.usefixtures("small_splits")
def test_the_right_split(tmp_path: Path) -> None:
    found = read("sqa3d", sqa3d(tmp_path, 2, split="val"))
    assert not found.problems
    assert list(found.splits.values()) == ["val"]
    assert "unlike the published split" not in found.oddities


@pytest.mark.usefixtures("small_splits")
def test_another_count_is_odd(tmp_path: Path) -> None:
    found = read("sqa3d", sqa3d(tmp_path, 1, split="val"))
    assert not found.problems
    assert "1 rows in 1 scenes" in found.oddities["unlike the published split"].first


@pytest.mark.usefixtures("small_splits")
def test_parts_of_a_split_are_counted_together_and_after_the_filter(tmp_path: Path) -> None:
    scans = ["scene0000_00", "scene0001_00"]
    good = [sr3d_row(scan_id=scan) for scan in scans]
    filtered = sr3d_row(mentions_target_class="FALSE")
    files = [
        write_table(tmp_path / "sr3d_test_between.csv", [*good, filtered]),
        write_table(tmp_path / "sr3d_test_support.csv", good),
    ]
    assert set(read("sr3d", files).splits.values()) == {"test"}
