"""A trained language model's answers about a scene, as they are made, and the scene as a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jobs.ask.head import elsewhere
from jobs.ask.pose import agent_at, check_pose
from jobs.common.datasets import open_dataset
from jobs.features.sets import unknown_scene
from jobs.finetune.llm.answers import LlmRun, answers, open_run, read_job
from jobs.finetune.llm.config import FinetuneLlmJob, SeenConfig, needs_scenes
from jobs.finetune.llm.rows import FOLDER
from jobs.view.config import PageConfig
from jobs.view.page import page_of, write_page
from jobs.view.scene import find, shown_scene, spread, views_of
from plinth.errors import ConfigError, PlinthError
from plinth.redaction import printable
from plinth.storage import StorageOptions
from poma3d.llm.conversations import Conversation
from poma3d.seen.config import NONE, VOXELS

KEY = "train"
"""Of the scenes in the run's job, for messages."""
EMPTY = "(empty answer)"
"""What is said where the model's first token ends its answer."""


def run(
    arguments: argparse.Namespace,
    config: PageConfig,
    options: StorageOptions,
    questions: Sequence[str],
    situation: Sequence[str],
) -> int:
    """Print the answers, write the page where the scene is at hand; returns the exit code."""
    job = read_job(arguments.run, options)
    check_pose(arguments.pose, job.scene.tokens == VOXELS, f"the model of {arguments.run}")
    trained = open_run(arguments.run, options, _seen(job, arguments), KEY, arguments.step, arguments.scene)
    known = trained.setup.numbers
    if job.scene.tokens != NONE and arguments.scene not in known.numbers:
        sets = known.stored or known.scenes
        with elsewhere("--data" if known.stored is None else "--features"):
            raise unknown_scene("" if sets is None else sets.names, arguments.scene, known.ids)
    print(f"{trained.storage.uri}: checkpoint of step {trained.step}")
    if job.scene.tokens == NONE:
        print("this model is a control that sees no scene: it answers from the question alone")
    agent = agent_at(arguments.pose, trained.storage, FOLDER, arguments.scene)
    titles = []
    for number, question in enumerate(questions):
        text = job.chat.text_joiner.join((*situation, question))
        asked = Conversation("asked", arguments.scene, str(number), (text,), (), agent=agent)
        print(f"“{printable(question)}”\n  ", end="", flush=True)
        streamer = trained.chat.streamer(lambda piece: print(printable(piece), end="", flush=True))
        ((_, answer),) = answers(trained, [asked], 1, job.chat.max_answer_tokens, streamer)
        if not answer.strip():
            answer = EMPTY
            print(EMPTY, end="")
        print()
        titles.append(f"{question} → {answer}")
    if job.scene.tokens != NONE:
        _page(arguments, config, options, trained, titles)
    return 0


def _seen(job: FinetuneLlmJob, arguments: argparse.Namespace) -> SeenConfig:
    """The scenes that are asked about: those of the run's job, or those that are named.

    Raises:
        ConfigError: features are named of a model that reads none.
    """
    reads_features = job.encoder is None and job.scene.tokens != NONE
    if arguments.features and not reads_features:
        raise ConfigError(f"The model of {arguments.run} reads no features.", "Leave --features out.")
    # Captions are not read here, so scenes are needed for geometry alone.
    wanted = bool(needs_scenes(job, SeenConfig()))
    return SeenConfig(
        [],
        (arguments.features or job.train.features) if reads_features else [],
        ([arguments.data] if arguments.data else job.train.scenes) if wanted else [],
    )


def _page(
    arguments: argparse.Namespace,
    config: PageConfig,
    options: StorageOptions,
    trained: LlmRun,
    titles: Sequence[str],
) -> None:
    known = trained.setup.numbers
    place = arguments.data
    if not place and known.scenes is not None:
        place = known.scenes.source_of(known.in_scenes[known.numbers[arguments.scene]]).uri
    if not place:
        print("no page, because the scene is not at hand: name its data set with --data")
        return
    try:
        samples = find(open_dataset(place, options), arguments.scene)
    except PlinthError as error:
        if arguments.data:
            raise
        print(f"no page, because the scene is not at hand: {error.problem} Name its data set with --data.")
        return
    scene = shown_scene(arguments.scene, samples, spread(views_of(samples), config.views), config)
    print(write_page(page_of(scene, config, note=". ".join(titles)), arguments.output))
