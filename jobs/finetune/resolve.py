"""A finetuning job with nothing left to find out: vocabulary, questions, text tower, order, length.

Everything is opened once, here in the driver. Workers get the result.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from jobs.common import models
from jobs.common.run_layout import HEADS, run_storage
from jobs.features.sets import FeatureSets, check_same_encoder, open_features
from jobs.finetune import questions
from jobs.finetune.build import WITH, build_from_sources, local
from jobs.finetune.config import TRAIN, FinetuneJob
from jobs.finetune.encoder import first_encoder
from jobs.finetune.questions import Joined, Seen
from jobs.finetune.readers import DIRECTIONS, read_questions, read_vocabulary
from jobs.finetune.scenes import open_scenes
from jobs.finetune.set_up import SceneSetup, of_encoder, of_features
from jobs.pretrain.resume import KeyNames
from jobs.pretrain.stage_spec import checks, in_steps, optim_of, stage_spec
from plinth import config
from plinth.data.config import SourceConfig
from plinth.errors import ConfigError, DataError, raise_together
from plinth.locations import absolute
from plinth.storage import Storage
from plinth.train import resolve as stages
from plinth.train.resolve import ResolvedStage
from poma3d.annotations import vocabulary
from poma3d.annotations.rows import Question
from poma3d.annotations.vocabulary import UnknownAnswers
from poma3d.heads.answers import Answers
from poma3d.heads.config import SEPARATE, TEACHER, HeadSceneConfig
from poma3d.heads.text import Words, revision_of
from poma3d.pretrained.config import TeacherConfig
from poma3d.seen.config import VOXELS

VOCABULARY_KEY = "vocabulary.json"
"""The classes of the head, in order."""


@dataclass(frozen=True)
class ResolvedHeads:
    """The stage, and what its head is scored with."""

    stage: ResolvedStage
    answers: Answers
    splits: dict[str, Joined]


@dataclass(frozen=True)
class Looked:
    """What a job reads, opened."""

    seen: dict[str, Seen]
    """What the head sees of each split."""
    asked: dict[str, list[Question]]
    """The questions of each split."""
    answers: Answers
    tower: str
    """Revision of the text tower."""
    words: Words


def resolve(
    job: FinetuneJob, accept_changes: bool = False, questions_in: Storage | None = None
) -> ResolvedHeads:
    """The stage of the job; questions, features or scenes, and text tower fit each other.

    The questions are written under names of their own: nothing that is there changes.

    Args:
        accept_changes: resume although the job differs from the one that wrote the last checkpoint.
        questions_in: below which folder the questions are written; the run's when None.

    Raises:
        ConfigError: a value that cannot be, or a text tower of another teacher than the encoder's.
        DataError: annotations, features or scenes that cannot be used.
        CheckpointError: no encoder where one is to be trained.
    """
    check_settings(job)
    there, run = absolute(job), run_storage(job)
    looked = look(there)
    found, answers, tower = looked.seen, looked.answers, looked.tower
    asked_in = run if questions_in is None else questions_in
    asked_in.check(write=True)
    joined = {
        name: questions.join(
            there, asked_in, name, looked.asked[name], found[name], answers, looked.words, tower
        )
        for name in there.splits
    }
    _check_answered(job, joined)
    source = joined[TRAIN].source
    heads = replace(there.heads, data=replace(there.heads.data, sources=[SourceConfig(source.uri)]))
    spec = stage_spec(
        job,
        heads,
        HEADS,
        partial(build_from_sources, there, answers.classes, joined[TRAIN].setup),
        _identity(job, found[TRAIN].encoder["digest"], tower, answers),
        accept_changes,
        _names_in_job(job),
    )
    return ResolvedHeads(stages.resolve(spec, [source]), answers, joined)


def look(job: FinetuneJob) -> Looked:
    """Open everything that the job reads; nothing is written.

    Args:
        job: with absolute paths.

    Raises:
        PlinthError: as `resolve`.
    """
    seen = _features(job) if job.encoder is None else _scenes(job)
    tower, words = _words(job, seen[TRAIN].encoder)
    asked = {
        name: read_questions(job.qa, split.annotations, job.storage, name)
        for name, split in job.splits.items()
    }
    return Looked(seen, asked, _answers(job, asked[TRAIN]), tower, words)


def check_settings(job: FinetuneJob) -> None:
    """What can be said without opening anything.

    Raises:
        PlinthError: the value that is out of range, or all of them together.
    """
    raise_together([job.validate, *checks(job, [(HEADS, job.heads)])])


def write_vocabulary(run: Storage, answers: Answers) -> None:
    """Keep the classes of the head with the run."""
    content = {"answers": list(answers.texts), "unknown": answers.unknown.value, "digest": answers.digest}
    run.write(VOCABULARY_KEY, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _features(job: FinetuneJob) -> dict[str, Seen]:
    """The features of each split.

    Raises:
        DataError: of different encoders or sizes; names both.
    """
    found = {
        name: open_features(split.features, job.storage, f"{name}.features: ")
        for name, split in job.splits.items()
    }
    first = found[TRAIN]
    for name, other in found.items():
        check_same_encoder(first.encoder, other.encoder, f"{name}.features {other.names}")
        if other.shape.embedding != first.shape.embedding:
            raise DataError(f"{name}.features are {other.shape.embedding} wide, not {first.shape.embedding}.")
    if job.scene.tokens != VOXELS:
        return {name: Seen(sets, sets.encoder, sets.shape.embedding) for name, sets in found.items()}
    made = {name: _placed(job, name, sets) for name, sets in found.items()}
    return {name: Seen(sets, sets.encoder, made[name].width, made[name]) for name, sets in found.items()}


def _placed(job: FinetuneJob, name: str, sets: FeatureSets) -> SceneSetup:
    """The cells of a split whose features are open."""
    scenes = open_scenes(job.splits[name].scenes, job.storage, f"{name}.scenes: ")
    return of_features(job.scene, sets, scenes, name)


def _scenes(job: FinetuneJob) -> dict[str, Seen]:
    """The scenes of each split, and the encoder that starts to be trained on them.

    Raises:
        DataError: scenes of other sizes than the encoder takes, or than those of training.
        CheckpointError: no encoder there.
    """
    assert job.encoder is not None
    first, record = first_encoder(job.encoder, job.storage, WITH)
    found = {
        name: open_scenes(split.scenes, job.storage, f"{name}.scenes: ") for name, split in job.splits.items()
    }
    for name, sets in found.items():
        if sets.shape.views != found[TRAIN].shape.views:
            raise DataError(
                f"{name}.scenes have {sets.shape.views} views, those of train {found[TRAIN].shape.views}.",
                "Ingest all scenes with the same number of views.",
            )
    seen = {}
    for name, sets in found.items():
        setup = of_encoder(job.scene, first, record, sets, name)
        seen[name] = Seen(sets, record, setup.width, setup)
    return seen


def _words(job: FinetuneJob, encoder: dict[str, Any]) -> tuple[str, Words]:
    """The text tower's revision and its tokenizer.

    Raises:
        ConfigError: it cannot be loaded, or is not of the teacher that the encoder was trained with.
    """
    text = local(job.text, job.storage)
    if job.text.kind == TEACHER:
        _check_teacher(job, encoder)
    try:
        return revision_of(text), Words(text)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _check_teacher(job: FinetuneJob, encoder: dict[str, Any]) -> None:
    text = job.text
    teacher = TeacherConfig(text.source, text.revision, trust_remote_code=text.trust_remote_code)
    record = models.record(teacher, job.storage)
    if not record.matches(replace(record, name=encoder["teacher"], revision=encoder["teacher_revision"])):
        raise ConfigError(
            f"text.kind is {TEACHER}, but the encoder {encoder['run']} was trained with "
            f"{encoder['teacher']} at {encoder['teacher_revision']}, and text.source is {record.name} at "
            f"{record.revision}.",
            "Give that teacher, or text.kind=transformers for a tower of another space.",
        )


def _answers(job: FinetuneJob, of_training: list[Question]) -> Answers:
    if job.qa.vocabulary is not None:
        found = read_vocabulary(job.qa.vocabulary, job.storage)
    elif job.qa.task == DIRECTIONS:
        found = vocabulary.of_directions(job.qa.directions)
    else:
        found = vocabulary.of_training(of_training)
    try:
        return Answers(found, UnknownAnswers(job.qa.unknown_answers))
    except ValueError as error:
        raise ConfigError(f"{error}.", "Change qa.vocabulary or qa.unknown_answers.") from None


def _check_answered(job: FinetuneJob, joined: dict[str, Joined]) -> None:
    """Refuse to train on questions without answers, or to choose by them."""
    for name, key in ((TRAIN, TRAIN), (job.qa.select_on, "qa.select_on")):
        counts = joined[name].counts
        if counts["without_answer"] == counts["rows"]:
            raise DataError(
                f"{key}: none of the {counts['rows']} questions of {name}.annotations has an answer.",
                "Give the file with the answers, too, or another split.",
            )


def as_decisive(job: FinetuneJob) -> dict[str, Any]:
    """The job without what changes speed and memory alone in `encoder` and `text`, and without the defaults
    of keys that older jobs did not have."""
    full = config.to_dict(job)
    if job.head.attention == SEPARATE:
        full["head"].pop("attention")
    if job.scene == HeadSceneConfig():
        full.pop("scene")
    full["text"].pop("allow_tensors")
    if full["encoder"] is not None:
        for key in ("cached_scenes", "gradient_checkpointing"):
            full["encoder"].pop(key)
    return full


def _names_in_job(job: FinetuneJob) -> KeyNames:
    """Keys of the job for those of `_identity`."""
    encoder = "train.features (their encoder)" if job.encoder is None else "encoder.source (its weights)"
    vocabulary = f"{TRAIN}.annotations (their answers)"
    if job.qa.vocabulary is not None:
        vocabulary = "qa.vocabulary (its content)"
    elif job.qa.task == DIRECTIONS:
        vocabulary = "qa.directions (as answers)"
    tower = "text.source (its weights)" if job.text.revision is None else "text.revision"
    return KeyNames(
        {"encoder_training": "encoder", "protocol": "qa"},
        {"encoder": encoder, "vocabulary": vocabulary, "text.revision": tower},
    )


def _identity(job: FinetuneJob, encoder: str, tower: str, answers: Answers) -> dict[str, Any]:
    """What decides the result: a run that resumes must agree in all of it. What is left out changes speed,
    memory and figures only; what the questions hold is in the plan's fingerprint."""
    full, heads = as_decisive(job), job.heads
    text = {k: v for k, v in full["text"].items() if k not in ("source", "revision")}
    training = {k: v for k, v in (full["encoder"] or {}).items() if k not in ("source", "teacher")}
    trained = {} if job.encoder is None else {"encoder_training": training}
    return {
        **trained,
        "seed": job.seed,
        "encoder": encoder,
        "vocabulary": answers.digest,
        "protocol": {
            k: full["qa"][k] for k in ("task", "directions", "unknown_answers", "text_joiner", "situations")
        },
        "text": text | {"revision": tower},
        "head": full["head"],
        **({"scene": full["scene"]} if job.scene.tokens == VOXELS else {}),
        "shuffle_scenes": job.shuffle_scenes,
        "zero": job.zero.identity,
        "optim": asdict(optim_of(job, heads, HEADS)),
        "data": {key: getattr(heads.data, key) for key in ("lanes", "window_row_groups")},
        "global_batch_size": heads.global_batch_size,
        "micro_batch_size": heads.micro_batch_size,
        "epochs": heads.epochs,
        "steps": in_steps(heads, HEADS, 0)[0],
    }
