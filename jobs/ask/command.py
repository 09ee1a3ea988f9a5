"""`poma ask RUN SCENE QUESTION...`: a head's best answers, and which views of the scene it looked at; or, of
a language model, its answer."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from jobs.ask import language_model
from jobs.ask.answers import Said, ask
from jobs.ask.head import Run, features_of, load, open_run, scenes_of
from jobs.ask.pose import agent_at, check_pose
from jobs.ask.scene import AskedScene
from jobs.ask.scene import find as find_scene
from jobs.common.datasets import open_dataset
from jobs.common.flags import storage_options
from jobs.display.text import aligned
from jobs.features.sets import FeatureSets
from jobs.finetune.llm.answers import is_language_model
from jobs.finetune.questions import FOLDER
from jobs.finetune.scenes import SceneSets
from jobs.view.arguments import page_config
from jobs.view.config import PageConfig
from jobs.view.page import RankedBy, write_page
from jobs.view.ranked import ranked_page
from jobs.view.scene import find
from plinth.errors import ConfigError, DataError, PlinthError
from plinth.redaction import printable
from plinth.storage import StorageOptions
from plinth.units import counted
from poma3d.heads.config import GUIDED
from poma3d.sample import Sample

ANSWERS = 5
"""Answers of a question that are printed."""
VIEWS = 5
"""Views that are printed."""
AFTER_A_SITUATION = ("sqa3d", "hypo3d", "msnn")
"""Tasks whose questions all come after a situation."""
OF_VIEWS = RankedBy(
    "attention",
    "Views ranked by the attention of the head, of sum 1; the most is red. It weighs views before it reads, "
    "so the weights are the same for every question",
)
OF_THE_QUESTION = RankedBy(
    "attention",
    "Views ranked by the attention of the head to this question, of sum 1; the most is red",
)


def run(arguments: argparse.Namespace) -> int:
    """Print the answers, write the page where the scene is at hand; returns the exit code."""
    config, options = page_config(arguments), storage_options(arguments)
    questions = [text.strip() for text in arguments.questions]
    situation = [text.strip() for text in arguments.situation]
    if not all((*questions, *situation)):
        raise ConfigError("A question or situation is empty.", "Say what is asked.")
    if is_language_model(arguments.run, options):
        return language_model.run(arguments, config, options, questions, situation)
    trained = open_run(arguments.run, options, arguments.step)
    check_pose(arguments.pose, trained.sees_cells, f"the head of {trained.storage.uri}")
    agent = agent_at(arguments.pose, trained.storage, FOLDER, arguments.scene)
    seen = _seen(trained, arguments)
    opened = load(trained, seen, _places(trained, seen, arguments), arguments.scene)
    answers = opened.answers
    found = find_scene(opened, arguments.scene)
    texts = [trained.job.qa.text_joiner.join((*situation, question)) for question in questions]
    said = ask(opened, found, texts, agent)
    print(
        f"{trained.storage.uri}: {trained.job.qa.task}, checkpoint of step {trained.step}, {trained.chosen}"
    )
    for remark in _remarks(trained, situation, agent is not None, said, len(questions)):
        print(remark)
    for row, question in enumerate(questions):
        print("\n".join(_lines(trained, question, said, row, answers.texts)))
    if not trained.sees_views:
        return 0
    titles = [
        f"{question} → {answers.texts[said.logits[row].argmax()]} ({_chance(said.logits[row].max()):.2f})"
        for row, question in enumerate(questions)
    ]
    ranked_by = OF_THE_QUESTION if trained.job.head.attention == GUIDED else OF_VIEWS
    _page(arguments, config, options, found, said, titles, ranked_by)
    return 0


def _seen(trained: Run, arguments: argparse.Namespace) -> FeatureSets | SceneSets:
    """What the head sees scenes by.

    Raises:
        PlinthError: it cannot be used, or is named although the head's encoder was trained with it.
    """
    if not trained.trained_encoder:
        return features_of(trained, arguments.features)
    if arguments.features:
        raise ConfigError(
            f"The encoder of {trained.storage.uri} was trained with its head, which reads no features.",
            "Name the data set of scenes with --data.",
        )
    return scenes_of(trained, arguments.data)


def _places(trained: Run, seen: FeatureSets | SceneSets, arguments: argparse.Namespace) -> SceneSets | None:
    """Where the patches of features are, for a head that sees cells.

    Raises:
        PlinthError: the data sets of scenes cannot be used.
    """
    if not trained.sees_cells or isinstance(seen, SceneSets):
        return None
    return scenes_of(trained, arguments.data)


def _remarks(trained: Run, situation: Sequence[str], has_pose: bool, said: Said, asked: int) -> Iterator[str]:
    """What makes an answer worth less than it looks."""
    task = trained.job.qa.task
    if said.cut and trained.reads:
        yield (
            f"warning: {said.cut} of {asked} questions are longer than the {said.limit} tokens that the text "
            "tower reads, and are cut: their ends were not read"
        )
    if said.unknown and trained.reads:
        yield (
            f"warning: {counted(said.unknown, 'word')} of the question unknown to the text tower, which "
            "reads a mark in place of each"
        )
    if task in AFTER_A_SITUATION and not situation:
        yield f"the questions of {task} come after a situation, and none was given: see --situation"
    if trained.sees_cells and not has_pose:
        yield "this head sees a scene from where the question is asked, and no place was given: see --pose"
    if not trained.sees_views:
        yield "this head is a control that sees no views: it answers from the question alone"
    if not trained.reads:
        yield "this head is a control that reads no question: it answers from the views alone"
    if trained.job.shuffle_scenes:
        yield "this head is a control that was trained on the views of other scenes"


def _lines(trained: Run, question: str, said: Said, row: int, texts: Sequence[str]) -> Iterator[str]:
    logits = said.logits[row]
    best = np.argsort(-logits, kind="stable")[:ANSWERS]
    yield f"“{printable(question)}”"
    cells = [
        [f"  {printable(texts[i])}", f"probability {_chance(logits[i]):.3f}", f"logit {logits[i]:.2f}"]
        for i in best.tolist()
    ]
    yield from aligned(cells)
    if not trained.sees_views:
        return
    attention = said.attention[row]
    looked = np.argsort(-attention, kind="stable")[: min(VIEWS, int((attention > 0).sum()))]
    answer = printable(texts[best[0]])
    yield from aligned(
        [
            [
                f"  view {view}",
                f"attention {attention[view]:.3f}",
                f"without it the logit of {answer} changes by {said.without[row, view]:+.2f}"
                if np.isfinite(said.without[row, view])
                else "the only view",
            ]
            for view in looked.tolist()
        ]
    )


def _chance(logit: float) -> float:
    """Each answer is trained by itself, so the probabilities of a question have no fixed sum."""
    return float(1 / (1 + np.exp(-np.float64(logit))))


def _page(
    arguments: argparse.Namespace,
    config: PageConfig,
    options: StorageOptions,
    found: AskedScene,
    said: Said,
    titles: Sequence[str],
    ranked_by: RankedBy,
) -> None:
    """Write the page and say where; without a data set named, say why there is none.

    Raises:
        PlinthError: a data set that was named and does not fit, or a page that cannot be written.
    """
    try:
        samples = _samples(arguments.data or found.data, arguments.scene, found, options)
    except PlinthError as error:
        if arguments.data:
            raise
        print(f"no page, because the scene is not at hand: {error.problem} Name its data set with --data.")
        return
    values = said.attention[:, np.flatnonzero(found.view_valid)].T
    page, _ = ranked_page(arguments.scene, samples, titles, values, config, ranked_by=ranked_by)
    print(write_page(page, arguments.output))


def _samples(uri: str, scene_id: str, found: AskedScene, options: StorageOptions) -> list[Sample]:
    """The scene with its geometry, if it has the views of the features.

    Raises:
        DataError: no data set, no such scene, or other views.
    """
    dataset = open_dataset(uri, options)
    samples = find(dataset, scene_id)
    valid = np.concatenate([sample.view_valid for sample in samples])
    if not np.array_equal(valid.astype(bool), found.view_valid.astype(bool)):
        raise DataError(
            f"Scene '{printable(scene_id)}' has other views in {dataset.storage.uri} than in its features "
            f"{found.where}.",
            "Give the data set that the features were made of, or run `poma features` again.",
        )
    return samples
