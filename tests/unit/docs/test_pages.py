"""The documentation holds together: links lead somewhere, paths exist, the README is one page."""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.helpers.docs.pages import ELSEWHERE, FENCE, PAGES, ROOT, anchors, links

README_LINES = 150
LINE_CHARACTERS = 120
TOP_FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
CODE = re.compile(r"`([^`\n]+)`")
by_page = pytest.mark.parametrize("page", [*PAGES, *ELSEWHERE], ids=lambda page: str(page.relative_to(ROOT)))


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@by_page
def test_paths_in_text_exist(page: Path) -> None:
    """`jobs/cli.py` in backquotes is a file or folder of this repository; so are the modules after -m."""
    text = FENCE.sub("", page.read_text())
    missing = []
    for code in CODE.findall(text):
        for word in code.split():
            name = word.split("::")[0].rstrip(".,:")
            if name.split("/")[0] not in TOP_FOLDERS or "/" not in name or re.search(r"[A-Z{*<]", name):
                continue
            if not (ROOT / name).exists() and not (ROOT / "platform" / name).exists():
                missing.append(name)
        if (module := re.search(r"python -m ([\w.]+)", code)) and find_spec(module[1]) is None:
            missing.append(module[1])
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_has_a_drawing_or_a_picture(page: Path) -> None:
    text = page.read_text()
    drawings = [match for match in FENCE.finditer(text) if match[1] in ("", "mermaid")]
    assert drawings or "![" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_fit_a_screen(page: Path) -> None:
    """Tables and pictures are exempt."""
    long = [
        number
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > LINE_CHARACTERS and not line.startswith(("|", "!["))
    ]
    assert not long


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_page_is_in_the_index() -> None:
    listed = set(links(ROOT / "docs/README.md"))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - listed == {"README.md"}


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert (ROOT / "LICENSE").read_text().strip().startswith("Apache License")
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_run_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    for hook in hooks:
        tool = hook["entry"].split()[0].rsplit("/", 1)[-1]
        assert f"$(BIN)/{tool}" in makefile, hook["id"]
