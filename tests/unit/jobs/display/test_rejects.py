"""What is said of rejects: a remedy for every reason there is, and one line."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.display.rejects import OF_FRAMES, OF_IMAGES, OF_VIEWS, Remedies, example, last_line, remedy
from jobs.ingest.build import UNUSABLE_SCAN
from jobs.lift.versions import DUPLICATE
from poma3d.scenes.frame import CAPTION_REASONS

ROOT = Path(__file__).parents[4]
PLACE = {"BadFrame": 0, "BadImage": 0, "BadRecord": 1, "Reject": 2, "leave_out": 1}
"""Which argument is the reason."""
UNKNOWN = "see what was found in the column `value` of rejects.csv"


def texts(tree: ast.Module) -> dict[str, str]:
    """The texts that a module gives names to."""
    pairs: list[tuple[ast.AST, ast.AST]] = []
    for each in tree.body:
        for target in each.targets if isinstance(each, ast.Assign) else []:
            both = isinstance(target, ast.Tuple) and isinstance(each.value, ast.Tuple)
            pairs += zip(target.elts, each.value.elts, strict=True) if both else [(target, each.value)]
    return {
        target.id: value.value
        for target, value in pairs
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def literal(node: ast.AST, named: dict[str, str]) -> str | None:
    """A reason as it is written; the parts that vary as a word."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "thing" for part in node.values)
    return named.get(node.id) if isinstance(node, ast.Name) else None


def reasons(folder: str) -> Iterator[str]:
    """Every reason that is written in the source below a folder."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    named = {name: text for tree in trees for name, text in texts(tree).items()}
    for tree in trees:
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = PLACE.get(called)
            if place is not None and len(node.args) > place and (text := literal(node.args[place], named)):
                yield text


@pytest.mark.parametrize(
    ("folders", "remedies", "least"),
    [(["poma3d/scenes"], OF_FRAMES, 12), (["poma3d/lift", "jobs/lift"], OF_IMAGES, 15)],
)
def test_every_reason_has_its_remedy(folders: list[str], remedies: Remedies, least: int) -> None:
    found = {reason for folder in folders for reason in reasons(folder)}
    assert len(found) >= least, "the reasons are not found in the source any more"
    assert {reason for reason in found if remedy(reason, remedies) == UNKNOWN} == set()


def test_every_remedy_is_of_a_reason_that_there_is() -> None:
    said = set(reasons("poma3d")) | set(reasons("jobs")) | {UNUSABLE_SCAN, DUPLICATE, *CAPTION_REASONS}
    for remedies in (OF_FRAMES, OF_IMAGES):
        assert {r for r in remedies if not any(remedy(s, {r: "x"}) == "x" for s in said)} == set()
    named = {**dict.fromkeys([UNUSABLE_SCAN, *CAPTION_REASONS], OF_FRAMES), DUPLICATE: OF_IMAGES}
    assert all(reason in remedies for reason, remedies in named.items())
    assert set(OF_VIEWS) == {"no caption"}


def test_the_most_frequent_reason_comes_with_its_count_and_its_remedy() -> None:
    line = last_line(Counter({"unreadable depth": 2, "too little valid depth": 5}), OF_FRAMES, "rejects.csv")
    assert "too little valid depth, 5 of 7 rejects: lower views.min_valid_depth" in line
    assert "(each in rejects.csv)" in line
    assert remedy("a reason of an own reader", OF_FRAMES) == UNKNOWN


def test_what_comes_from_data_stays_one_bounded_line() -> None:
    shown = example("scan\n1", "\x1b[31mred\udcff" + "x" * 1000)
    assert shown.isprintable()
    assert shown.startswith(r"scan\n1 (\x1b[31mred\udcff")
    assert len(shown) < 350
