"""The head of a run of `poma finetune`, as its checkpoint has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs.common.devices import own_device
from jobs.common.run_layout import CONFIG_KEY, HEADS
from jobs.features.sets import FeatureSets, UnknownSceneError, open_features
from jobs.finetune.build import WITH, build_stage, local
from jobs.finetune.config import FinetuneJob
from jobs.finetune.encoder import first_encoder
from jobs.finetune.evaluate import BEST, RESULT_KEY, load_head
from jobs.finetune.resolve import VOCABULARY_KEY
from jobs.finetune.scenes import SceneSets, open_scenes
from jobs.finetune.set_up import SceneSetup, of_encoder, of_features
from plinth import config
from plinth.checkpoint import store
from plinth.errors import CheckpointError, ConfigError, DataError, PlinthError
from plinth.storage import Storage, StorageOptions
from plinth.storage.json_objects import damaged, read_json
from poma3d.annotations.vocabulary import UnknownAnswers, Vocabulary
from poma3d.heads.answers import Answers
from poma3d.heads.config import QUESTION, VIEWS
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import Words, revision_of
from poma3d.seen.config import VOXELS

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
    def sees_cells(self) -> bool:
        """Whether its head sees cells of space from where the question is asked."""
        return self.job.scene.tokens == VOXELS

    @property
    def sees_views(self) -> bool:
        """Whether its head does; a control does not."""
        return self.job.head.inputs != QUESTION

    @property
    def reads(self) -> bool:
        """Whether its head reads the question; a control does not."""
        return self.job.head.inputs != VIEWS


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
    encoder was trained with it, and where the cells of another lie.

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


@dataclass(frozen=True)
class Opened:
    """A run whose head is loaded."""

    run: Run
    stage: QuestionStage
    """On this process's device, in evaluation mode."""
    answers: Answers
    words: Words
    """Of its text tower."""
    seen: FeatureSets | SceneSets
    setup: SceneSetup | None
    """Where the head sees scenes by their numbers."""


def load(
    run: Run, seen: FeatureSets | SceneSets, places: SceneSets | None = None, only: str | None = None
) -> Opened:
    """The head on this process's device, its answers, and the tokenizer of its text tower.

    Args:
        places: the data sets of scenes that tell where the patches of features are, for a head that sees
            cells.
        only: the one scene that is asked about, so that of the others no places are needed; any when None.

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
    setup = _setup(run, seen, places, only)
    width = seen.shape.embedding if setup is None and isinstance(seen, FeatureSets) else 0
    posed = setup is not None and run.sees_cells
    shape = QuestionShape(seen.shape.views, width, 1, words.limit, 1, setup is not None, posed)
    stage = build_stage(run.job, answers.classes, shape, setup).to(own_device())
    load_head(stage, run.checkpoints, run.step)
    return Opened(run, stage, answers, words, seen, setup)


def _setup(
    run: Run, seen: FeatureSets | SceneSets, places: SceneSets | None, only: str | None
) -> SceneSetup | None:
    """What the head sees of scenes by their numbers.

    Raises:
        DataError: scenes of another size than its encoder takes, or places of other scenes.
    """
    job = run.job
    if isinstance(seen, FeatureSets):
        return of_features(job.scene, seen, places, "", only) if run.sees_cells else None
    assert job.encoder is not None
    first, record = first_encoder(job.encoder, job.storage, WITH)
    return of_encoder(job.scene, first, record, seen, "")


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
