"""The head of a run of `poma finetune`, as its checkpoint has it, and what it says of a scene.

Legend: n questions, V views, A answers, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jobs.common.devices import own_device
from jobs.common.run_layout import CONFIG_KEY, HEADS
from jobs.features.sets import FeatureSets, UnknownSceneError, open_features
from jobs.finetune.build import build_stage, local
from jobs.finetune.config import FinetuneJob
from jobs.finetune.evaluate import BEST, RESULT_KEY, load_head
from jobs.finetune.resolve import VOCABULARY_KEY
from jobs.finetune.scenes import VALID, SceneSets, SceneStore, open_scenes
from plinth import config
from plinth.checkpoint import store
from plinth.data.manifest import with_version
from plinth.errors import CheckpointError, ConfigError, DataError, PlinthError
from plinth.storage import Storage, StorageOptions
from plinth.storage.json_objects import damaged, read_json
from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary
from poma3d.heads.answers import Answers
from poma3d.heads.config import QUESTION, VIEWS
from poma3d.heads.questions import QuestionShape, SceneViews
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import Words, revision_of

GIVE = "Give output/name of a job of `poma finetune`."
TRAIN_AGAIN = "Run the job's `poma finetune` again: it writes the file anew"


@dataclass(frozen=True)
class Run:
    """A run that has a checkpoint; its head is not loaded yet."""

    job: FinetuneJob
    storage: Storage
    step: int
    chosen: str
    """Why this checkpoint, in words."""
    identity: dict[str, Any]
    """What the checkpoint says of what it was trained with: encoder, vocabulary, text tower."""

    @property
    def checkpoints(self) -> Storage:
        """Where they lie."""
        return self.storage.child(HEADS).child("checkpoints")

    @property
    def trained_encoder(self) -> bool:
        """Whether its encoder was trained with it, so that it reads scenes rather than features."""
        return self.job.encoder is not None

    @property
    def sees_views(self) -> bool:
        """Whether its head does; a control does not."""
        return self.job.head.inputs != QUESTION

    @property
    def reads(self) -> bool:
        """Whether its head reads the question; a control does not."""
        return self.job.head.inputs != VIEWS


@dataclass(frozen=True)
class AskedScene:
    """A scene as a head sees it."""

    views: SceneViews
    where: str
    """The data set of features, or of scenes."""
    data: str
    """The data set of scenes, at its version."""


@dataclass(frozen=True)
class Said:
    """What a head says of a scene, per question."""

    logits: np.ndarray
    """float32 [n, A]."""
    attention: np.ndarray
    """float32 [V], sum 1 over valid views, 0 for repeats: the same for all questions, because views are
    pooled by themselves."""
    without: np.ndarray
    """float32 [n, V]: how much the best answer's logit changes when the view is left out; 0 for repeats, and
    NaN where it is the only one."""
    cut: int
    """How many of the questions were longer than the tower allows."""
    limit: int
    """Tokens that it allows."""
    unknown: int
    """How many words of the questions the tower does not know."""


def open_run(uri: str, options: StorageOptions, step: int | None = None) -> Run:
    """The run at `uri`.

    Args:
        step: of the checkpoint; the best of the run's results when None, the last where there are none.

    Raises:
        ConfigError: a run of another command.
        CheckpointError: no run there, or no such checkpoint.
    """
    storage = Storage.from_uri(uri, options)
    storage.check()
    if not storage.exists(CONFIG_KEY):
        raise CheckpointError(f"{storage.uri} is no run: there is no {CONFIG_KEY}.", GIVE)
    origin = f"{storage.uri}/{CONFIG_KEY}"
    raw = config.parse(storage.read(CONFIG_KEY).decode(), origin)
    if raw.get("kind") != FinetuneJob.kind:
        raise ConfigError(f"{storage.uri} is a run of `poma {raw.get('kind')}`, which has no head.", GIVE)
    job = config.build(FinetuneJob, [(origin, raw)])
    job.storage = options
    checkpoints = storage.child(HEADS).child("checkpoints")
    found, chosen = (step, "as asked") if step is not None else _best(storage, checkpoints)
    saved = store.read_state(checkpoints, found)
    return Run(job, storage, saved["step"], chosen, saved["notes"]["config"])


def _best(storage: Storage, checkpoints: Storage) -> tuple[int | None, str]:
    """The step that the run's results call the best, if it is still there."""
    if storage.exists(RESULT_KEY):
        fix = f"{TRAIN_AGAIN}, or name a checkpoint with --step."
        results = read_json(storage, RESULT_KEY, fix, ("splits", "select_on"))
        kept = {info.step for info in store.list_checkpoints(checkpoints) if info.is_committed}
        try:
            of = {split[BEST]["step"] for split in results["splits"].values() if BEST in split} & kept
        except (AttributeError, KeyError, TypeError):
            raise damaged(storage, RESULT_KEY, "its splits name no steps", fix) from None
        if of:
            return min(of), f"the best on {results['select_on']}"
    return None, "the last"


def features_of(run: Run, named: Sequence[str] | None) -> FeatureSets:
    """The data sets of features that are named, or else all that the run's job names.

    Raises:
        PlinthError: one cannot be used, or is of another encoder than the head's.
    """
    if named:
        found = open_features(named, run.job.storage)
    else:
        ours = list(dict.fromkeys(uri for split in run.job.splits.values() for uri in split.features))
        try:
            found = open_features(ours, run.job.storage)
        except PlinthError as error:
            raise type(error)(
                f"The features that the job of {run.storage.uri} names: {error.problem}",
                "Name them with --features.",
            ) from None
    if found.encoder["digest"] != run.identity["encoder"]:
        raise DataError(
            f"{found.names} holds features of the encoder {found.encoder['digest']} "
            f"({found.encoder['weights']}, {found.encoder['run']}), the head of {run.storage.uri} was "
            f"trained on those of {run.identity['encoder']}.",
            "Run `poma features` with that encoder.",
        )
    return found


def scenes_of(run: Run, named: str | None) -> SceneSets:
    """The data set of scenes that is named, or else all that the run's job names: what a head reads whose
    encoder was trained with it.

    Raises:
        PlinthError: one cannot be used.
    """
    if named:
        return open_scenes([named], run.job.storage)
    ours = list(dict.fromkeys(uri for split in run.job.splits.values() for uri in split.scenes))
    try:
        return open_scenes(ours, run.job.storage)
    except PlinthError as error:
        raise type(error)(
            f"The scenes that the job of {run.storage.uri} names: {error.problem}", "Name them with --data."
        ) from None


@contextmanager
def elsewhere(flag: str) -> Iterator[None]:
    """Say with a scene that is not there which flag names another data set.

    Raises:
        UnknownSceneError: as it was raised, with that.
    """
    try:
        yield
    except UnknownSceneError as error:
        raise UnknownSceneError(
            error.problem, f"{error.fix} Name the data set that has it with {flag}."
        ) from None


def find(stage: QuestionStage, seen: FeatureSets | SceneSets, scene_id: str) -> AskedScene:
    """A scene as the head sees it: its features, or those of the encoder that was trained with the head.

    Raises:
        DataError: there is no such scene, or it has no view.
    """
    if isinstance(seen, FeatureSets):
        with elsewhere("--features"):
            found = seen.find(scene_id)
        made_of, version = found.manifest.attributes["data"]["uri"], found.manifest.attributes.get("version")
        return AskedScene(found.views, found.storage.uri, with_version(str(made_of), version))
    with elsewhere("--data"):
        number = seen.number(scene_id)
    geometry = SceneStore(seen, 1).read([number])
    device = stage.head.norm.weight.device
    with torch.no_grad():
        views = stage.encode({name: torch.from_numpy(array).to(device) for name, array in geometry.items()})
    source = seen.source_of(number)
    return AskedScene(SceneViews(views[0].cpu().numpy(), geometry[VALID][0]), source.uri, source.uri)


def load(run: Run, seen: FeatureSets | SceneSets) -> tuple[QuestionStage, Answers, Words]:
    """The head on this process's device, its answers, and the tokenizer of its text tower.

    Raises:
        ConfigError: the text tower cannot be loaded, or is another one now.
        CheckpointError: no vocabulary, or one that the head was not trained with.
        DataError: scenes of another size than its encoder takes.
    """
    answers = _answers_of(run.storage)
    if answers.digest != run.identity["vocabulary"]:
        raise CheckpointError(
            f"{run.storage.uri}/{VOCABULARY_KEY} is not the list that the head was trained with.",
            "Restore it, or train the head again.",
        )
    text = local(run.job.text, run.job.storage)
    try:
        tower, words = revision_of(text), Words(text)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if tower != run.identity["text"]["revision"]:
        raise ConfigError(
            f"The text tower in {run.job.text.source} is not the one that the head was trained with: its "
            f"revision is {tower}, it was {run.identity['text']['revision']}.",
            "Put that one there.",
        )
    scenes = seen if isinstance(seen, SceneSets) else None
    by_scene = scenes is not None
    shape = QuestionShape(seen.shape.views, seen.shape.embedding, 1, words.limit, 1, by_scene)
    stage = build_stage(run.job, answers.classes, shape, scenes).to(own_device())
    load_head(stage, run.checkpoints, run.step)
    return stage, answers, words


def _answers_of(run: Storage) -> Answers:
    """The answers of a run.

    Raises:
        CheckpointError: there is no list of them.
        DamagedObjectError: it is not what was written.
    """
    fix = f"{TRAIN_AGAIN}."
    if not run.exists(VOCABULARY_KEY):
        raise CheckpointError(f"{run.uri} has no {VOCABULARY_KEY}, which lists its answers.", fix)
    kept = read_json(run, VOCABULARY_KEY, fix, ("answers", "unknown"))
    try:
        return Answers(Vocabulary(tuple(kept["answers"])), UnknownAnswers(kept["unknown"]))
    except (TypeError, ValueError) as error:
        raise damaged(run, VOCABULARY_KEY, error, fix) from None


@torch.no_grad()
def ask(
    stage: QuestionStage, answers: Answers, words: Words, scene: SceneViews, texts: Sequence[str]
) -> Said:
    """What the head says to each text, and what each view of the scene does for it.

    Args:
        texts: questions with their situations before them.
    """
    tokens, cut = words.encode(texts)
    valid_V = torch.from_numpy(scene.view_valid.astype(bool))
    logits, without = [], []
    for each in tokens:
        answered = stage.answer(*_batch(stage, scene, valid_V[None], each))
        logits_A = answered.logits[0, : len(answers.texts)]  # never the impossible class
        best, views = int(logits_A.argmax()), valid_V.nonzero().squeeze(1)
        change_V = torch.zeros(len(valid_V))
        if len(views) == 1:
            change_V[views] = torch.nan
        else:
            left_kV = valid_V.repeat(len(views), 1)
            left_kV[torch.arange(len(views)), views] = False
            other_k = stage.answer(*_batch(stage, scene, left_kV, each)).logits[:, best]
            change_V[views] = (other_k - logits_A[best]).float().cpu()
        logits.append(logits_A.float().cpu().numpy())
        without.append(change_V.numpy())
    attention = (answered.view_weights[0] * valid_V.to(answered.view_weights.device)).float().cpu().numpy()
    unknown = sum(words.unknown(each) for each in tokens)
    return Said(np.stack(logits), attention, np.stack(without), cut, words.limit, unknown)


def _batch(
    stage: QuestionStage, scene: SceneViews, valid_kV: torch.Tensor, tokens: Sequence[int]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The arguments of `QuestionStage.answer`: one question of one scene, with several choices of views."""
    device, rows = stage.head.norm.weight.device, len(valid_kV)
    batch = {
        "views": torch.from_numpy(np.array(scene.views)).expand(rows, -1, -1),
        "view_valid": valid_kV,
        "tokens": torch.tensor(tokens, dtype=torch.int32).expand(rows, 1, -1),
        "token_count": torch.full((rows, 1), len(tokens), dtype=torch.int32),
    }
    chosen = torch.zeros(rows, dtype=torch.long, device=device)
    return {name: tensor.to(device) for name, tensor in batch.items()}, chosen
