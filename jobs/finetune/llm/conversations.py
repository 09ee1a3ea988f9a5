"""What a job trains on, in words: questions of annotations, captions of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.finetune.config import QaConfig
from jobs.finetune.llm.config import CAPTIONS, SCENE_CAPTIONS, ConversationsConfig
from jobs.finetune.readers import read_questions
from jobs.finetune.scenes import SceneSets
from plinth.data.shards import RowGroupReader
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.annotations.poses import NEEDED
from poma3d.annotations.rows import Question
from poma3d.annotations.scan_frames import ScanFrames
from poma3d.llm.conversations import Conversation, agent_of
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
    try:
        scans = None if config.scans is None else ScanFrames(Path(config.scans))
    except ValueError as error:
        raise ConfigError(f"{where}.scans: {error}.") from None
    found, without = [], 0
    for question in asked:
        try:
            agent = _agent(question, scans)
        except ValueError:
            agent, without = None, without + 1
        texts = question.asked(joiner)
        found.append(
            Conversation(
                config.kind, question.scene_id, question.question_id, texts, question.answers, agent=agent
            )
        )
    if without:
        print(f"{where}: {without} of {len(asked)} questions have a pose that cannot be brought to our frame")
    return found


def _agent(question: Question, scans: ScanFrames | None) -> np.ndarray | None:
    """World -> agent; None where the question has no pose.

    Raises:
        ValueError: its pose cannot be brought to our frame.
    """
    if question.position is None or question.orientation is None:
        return None
    scan = None
    if scans is not None and NEEDED.get(question.frame):
        scan = scans.frame(question.scene_id, mesh=len(NEEDED[question.frame]) > 1)
    return agent_of(question, scan)


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
