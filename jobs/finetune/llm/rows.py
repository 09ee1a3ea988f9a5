"""Conversations in tokens as data sets that the platform reads like any other.

    output/name/conversations/KIND-<recipe>/     the recipe is a hash of all that decides the rows

So a resume finds its conversations as they were, and a changed job makes others beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.datasets import made_before
from jobs.common.objects import digest
from plinth.data import manifest as manifests
from plinth.data.config import ShardOptions
from plinth.data.manifest import Manifest, ShardEntry
from plinth.data.shards import write_shard
from plinth.data.sources import OpenSource
from plinth.errors import DataError
from plinth.storage import Storage
from poma3d.llm.chat import Chat
from poma3d.llm.conversations import (
    SCHEMA_VERSION,
    Conversation,
    ConversationRow,
    ConversationShape,
    encode,
)

FOLDER = "conversations"
SHARD_ROWS = 4096
SHOWN = 3
NO_ANSWER = ((0,),)
"""Of conversations whose answers are to be found: nothing reads it."""


@dataclass(frozen=True)
class Tokenised:
    """The rows of one kind of conversations."""

    kind: str
    weight: float
    rows: list[ConversationRow]
    """Sorted by scene."""
    counts: dict[str, int]
    """rows, scenes, without_scene, without_answer, cut_texts, cut_answers."""
    missing: list[str]
    """Scenes that are asked about and not there."""

    def say(self, where: str) -> None:
        """Print the counts; `where` is its key in the job."""
        _say(where, self.kind, self.counts, self.missing)


def tokenise(
    kind: str,
    weight: float,
    found: Sequence[Conversation],
    numbers: dict[str, int] | None,
    chat: Chat,
    where: str,
    with_answers: bool = True,
) -> Tokenised:
    """Put conversations in tokens; those without an answer or a scene are left out, and counted.

    Args:
        numbers: of the scenes that are there; None where no scene is looked at.
        where: key in the job, for messages.
        with_answers: else only what is asked, also where no answer is known.

    Raises:
        DataError: nothing is left.
    """
    present = [each for each in found if numbers is None or each.scene_id in numbers]
    missing = sorted({each.scene_id for each in found} - {each.scene_id for each in present})
    kept = [each for each in present if each.answers or not with_answers]
    if not kept:
        why = f"scenes such as {missing[0]} are not there" if missing else "no answers"
        raise DataError(
            f"{where}: none of the {len(found)} conversations can be trained on: {why}.",
            "Give the features or scenes of these conversations, and files with answers.",
        )
    kept.sort(key=lambda each: (0 if numbers is None else numbers[each.scene_id], each.sample_id))
    prompts, cut_texts = chat.prompts([text for each in kept for text in each.texts])
    texts = [text for each in kept for text in each.answers] if with_answers else []
    answers, cut_answers = chat.answers(texts)
    prompt, answer = iter(prompts), iter(answers)
    rows = []
    for each in kept:
        own = [next(prompt) for _ in each.texts]
        said = tuple(next(answer) for _ in each.answers) if with_answers else NO_ANSWER
        ids = tuple(one.ids for one in own)
        agent = {} if each.agent is None else {"agent": each.agent}
        rows.append(
            ConversationRow(each.sample_id, each.scene_id, ids, own[0].scene_at, said, each.view, **agent)
        )
    counts = {
        "rows": len(rows),
        "scenes": len({row.scene_id for row in rows}),
        "without_scene": len(found) - len(present),
        "without_answer": len(present) - len(kept),
        "cut_texts": cut_texts,
        "cut_answers": cut_answers,
    }
    return Tokenised(kind, weight, rows, counts, missing)


def write(
    run: Storage,
    found: Tokenised,
    shape: ConversationShape,
    numbers: dict[str, int] | None,
    recipe: dict[str, Any],
    encoder: dict[str, Any] | None,
    options: ShardOptions,
    shard_rows: int = SHARD_ROWS,
) -> OpenSource:
    """The data set of one kind; built where it is not there.

    Args:
        shape: that all kinds share.
        recipe: what decides the rows beside themselves.
        encoder: what is said of the encoder whose features are read.
    """
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "kind": FOLDER,
        "teacher": None,
        "shape": shape.to_dict(),
        "encoder": encoder,
        "counts": found.counts,
        "recipe": recipe | {"rows": digest([_content(row) for row in found.rows]), "shape": shape.to_dict()},
    }
    storage = run.child(f"{FOLDER}/{found.kind}-{digest(attributes['recipe'])}")
    manifest = made_before(storage)
    if manifest is None:
        entries = list(_shards(storage, found.rows, numbers, shape, options, shard_rows))
        manifest = Manifest(entries, attributes)
        manifests.commit(storage, manifest)
    return OpenSource(storage, manifest, found.weight)


def _content(row: ConversationRow) -> list[Any]:
    return [row.sample_id, row.prompts, row.scene_at, row.answers, row.view, row.agent.tolist()]


def _shards(
    storage: Storage,
    rows: Sequence[ConversationRow],
    numbers: dict[str, int] | None,
    shape: ConversationShape,
    options: ShardOptions,
    shard_rows: int,
) -> Iterator[ShardEntry]:
    of_rows = dict.fromkeys((row.scene_id for row in rows), 0) if numbers is None else numbers
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        table = encode(rows[start : start + shard_rows], of_rows, shape)
        yield write_shard(storage, f"{number:06d}", table, options)


def _say(where: str, kind: str, counts: dict[str, int], missing: Sequence[str]) -> None:
    print(f"{where}: {counts['rows']} conversations of {kind} about {counts['scenes']} scenes")
    if missing:
        print(
            f"{where}: {counts['without_scene']} are about {len(missing)} scenes that are not there: "
            f"{', '.join(missing[:SHOWN])}"
        )
    for name, text in (
        ("without_answer", "have no answer"),
        ("cut_texts", "texts are longer than chat.max_text_tokens and lost their beginning"),
        ("cut_answers", "answers are longer than chat.max_answer_tokens and lost their end"),
    ):
        if counts[name]:
            print(f"{where}: {counts[name]} {text}")
