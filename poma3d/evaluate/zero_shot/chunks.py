"""Queries of a scene's utterances as the follow-up makes them: in file order, in chunks.

Utterances are stripped, blank ones dropped, repeated ones kept; consecutive chunks of M are joined by one
blank. There is a query for each chunk, not for each scene.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from poma3d.evaluate.zero_shot.config import LastChunk


@dataclass(frozen=True)
class Query:
    """A text about a scene, of `sentences` utterances."""

    scene_id: str
    text: str
    sentences: int


def utterances_by_scene(said: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Scene -> its utterances, both in the order of the file, whose rows may be mixed; scenes of blank ones
    are left out.

    Args:
        said: (scene, text).
    """
    found: dict[str, list[str]] = {}
    for scene_id, text in said:
        if stripped := text.strip():
            found.setdefault(scene_id, []).append(stripped)
    return found


def chunk_queries(utterances: dict[str, list[str]], count: int, last: LastChunk) -> list[Query]:
    """The queries, scene by scene.

    Args:
        count: utterances of a query, M.
        last: whether a last chunk of fewer stays.
    """
    queries = []
    for scene_id, texts in utterances.items():
        for start in range(0, len(texts), count):
            chunk = texts[start : start + count]
            if len(chunk) == count or last is LastChunk.keep:
                queries.append(Query(scene_id, " ".join(chunk), len(chunk)))
    return queries
