"""What a job trains on, in words: questions of annotations, captions of scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.finetune.config import QaConfig
from jobs.finetune.llm.config import CAPTIONS, SCENE_CAPTIONS, ConversationsConfig
from jobs.finetune.readers import agents_of, read_questions
from jobs.finetune.scenes import SceneSets
from plinth.data.shards import RowGroupReader
from plinth.storage import StorageOptions
from poma3d.llm.conversations import Conversation
from poma3d.sample import decode


def read(
    config: ConversationsConfig, joiner: str, scenes: SceneSets | None, options: StorageOptions, where: str
) -> list[Conversation]:
    """The conversations of one kind.

    Args:
        joiner: between situation and question.
        scenes: whose captions they are.
        where: key in the job, for messages.

    Raises:
        ConfigError: a file or folder that is not there.
        DataError: files that hold nothing of the kind.
    """
    if config.kind in CAPTIONS:
        assert scenes is not None
        return _captions(config, scenes)
    qa = QaConfig(task=config.kind, directions=config.directions)
    asked = read_questions(qa, config.annotations, options, where)
    agents = agents_of(asked, config.scans, f"{where}.scans", where)
    return [
        Conversation(
            config.kind, each.scene_id, each.question_id, each.asked(joiner), each.answers, agent=agent
        )
        for each, agent in zip(asked, agents, strict=True)
    ]


def _captions(config: ConversationsConfig, scenes: SceneSets) -> list[Conversation]:
    found = []
    for source in scenes.sources:
        reader = RowGroupReader(source.storage)
        columns = ["scene_id", "view_valid", "view_captions", "scene_captions"]
        for shard in source.manifest.shards:
            table = reader.read_shard(shard, columns)
            valid = decode(table, ["view_valid"])["view_valid"].astype(bool)
            rows = zip(
                table["scene_id"].to_pylist(),
                table["view_captions"].to_pylist(),
                table["scene_captions"].to_pylist(),
                valid,
                strict=True,
            )
            for scene_id, of_views, of_scene, seen in rows:
                if config.kind == SCENE_CAPTIONS:
                    found += _of(config, scene_id, "scene", of_scene)
                    continue
                for view in np.flatnonzero(seen).tolist():
                    found += _of(config, scene_id, f"view-{view}", of_views[view], view)
    return found


def _of(
    config: ConversationsConfig, scene_id: str, name: str, captions: Sequence[str], view: int = -1
) -> list[Conversation]:
    """One with all captions as answers, none where there are none."""
    said = tuple(text for text in captions if text.strip())
    if not said:
        return []
    return [Conversation(config.kind, scene_id, name, tuple(config.requests), said, view)]
