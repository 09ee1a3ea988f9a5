"""The documentation as data: its pages, their fenced blocks, their commands, their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = [
    ROOT / "CHANGELOG.md",
    ROOT / "clusters/README.md",
    *sorted((ROOT / "infra").glob("*/README.md")),
]
"""Pages whose links are checked, too."""
NOT_RUN = "# not run in the tests: "
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a bash block, on one line and without its comment."""

    page: str
    line: int
    text: str
    not_run: str
    """Why no test runs it; empty for the others."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(path: Path, language: str) -> Iterator[Block]:
    """The fenced blocks of one language."""
    text = path.read_text()
    for match in FENCE.finditer(text):
        if match[1] == language:
            line = text[: match.start()].count("\n") + 2
            yield Block(path.relative_to(ROOT).as_posix(), line, language, match[2])


def commands(block: Block) -> Iterator[Command]:
    """The commands of a bash block. A line `# not run in the tests: REASON` holds up to an empty line."""
    reason, kept = "", ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.strip().startswith(NOT_RUN):
            reason = line.strip().removeprefix(NOT_RUN)
            assert reason, f"{block.page}:{number}: say why"
            continue
        if not line.strip():
            reason = ""
        words = f"{kept} {line.strip()}".strip()
        if words.endswith("\\"):
            kept = words[:-1].strip()
            continue
        kept = ""
        for part in without_comment(words).split("&&"):
            if part.strip():
                yield Command(block.page, number, part.strip(), reason)


def without_comment(line: str) -> str:
    """A shell line up to its comment; a # inside a word, such as images#3, is none."""
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0]


def links(path: Path) -> Iterator[str]:
    """Targets of the links and pictures of a page, outside fenced blocks."""
    yield from LINK.findall(FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
