"""A run of a language model for transformers: opened from its checkpoint, written merged or with its adapters
apart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common import models
from jobs.common.run_layout import TRAINING
from jobs.evaluate import encoders
from jobs.evaluate.config import EncoderWeights
from jobs.export.card import is_hub_id
from jobs.export.config import Adapters, ExportJob
from jobs.finetune.llm.answers import read_job
from jobs.finetune.llm.build import local
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.finetune.llm.resolve import chat_of
from jobs.finetune.llm.rows import FOLDER
from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint import store
from plinth.data import manifest as manifests
from plinth.data.manifest import Manifest
from plinth.engine.config import Precision
from plinth.errors import CheckpointError, ConfigError, PlinthError
from plinth.storage import Storage
from poma3d.auto.folder import without_folder
from poma3d.auto.language.folder import Trained, save_merged, save_separate
from poma3d.export import SceneEncoder, weights_digest
from poma3d.llm.config import LORA
from poma3d.llm.model import load_llm, new_projector, revision_of
from poma3d.pretrained.folder import same_revision
from poma3d.seen.config import NONE

LLM, PROJECTOR = "llm.", "projector."
"""Names of the weights in a checkpoint; the encoder's are `jobs.evaluate.encoders`'."""
STORED, COMPUTED = "float16", "float32"
"""The dtype of the features that a model has learnt from: of `poma features`, or of its own encoder."""
NEW = "new weights"


@dataclass(frozen=True)
class LlmRun:
    """A run of a language model, as it is handed on."""

    storage: Storage
    job: FinetuneLlmJob
    state: dict[str, Any]
    """Of the checkpoint."""
    conversations: dict[str, Manifest]
    """What it has learnt from: folder below the run -> manifest."""
    trained: Trained
    base: str
    """The model that was tuned: a hub id, or the last name of its folder."""
    is_hub: bool
    revision: str
    """Of its weights."""

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return int(self.state["step"])


def write(job: ExportJob, folder: Path) -> LlmRun:
    """Fill the folder as `job.adapters` says; returns what was written.

    Raises:
        ConfigError: no run of a language model; adapters where there are none; another model or encoder than
            it was trained on; nothing there.
        CheckpointError: no such checkpoint, or one of another model.
    """
    run = open_run(job)
    if job.adapters is Adapters.merged:
        save_merged(run.trained, folder)
    else:
        commit = run.job.llm.revision if run.is_hub else None
        save_separate(run.trained, run.job.llm.lora, run.base, commit, folder)
    return run


def open_run(job: ExportJob) -> LlmRun:
    """The parts of a run's model from its checkpoint; neither features nor scenes need be at hand."""
    models.quiet_transformers()
    run = replace(read_job(job.run, job.storage), storage=job.storage)
    _check(job, run)
    storage = Storage.from_uri(job.run, job.storage)
    checkpoints = storage.child(TRAINING).child("checkpoints")
    state = store.read_state(checkpoints, job.step)
    revision = _revision(run, state, storage.uri)
    chat = chat_of(run, storage)
    dtype = torch.bfloat16 if run.zero.precision is Precision.bf16 else torch.float32
    try:
        vocabulary = chat.vocabulary if run.llm.new is not None else None
        llm = load_llm(local(run.llm, run.storage), vocabulary, run.seed, dtype)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    with tempfile.TemporaryDirectory() as scratch:
        weights = checkpoint.read_full(checkpoints, Path(scratch), state["step"])
    _fill(llm, {n.removeprefix(LLM): w for n, w in weights.items() if n.startswith(LLM)}, checkpoints.uri)
    projector = _projector(
        {n.removeprefix(PROJECTOR): w for n, w in weights.items() if n.startswith(PROJECTOR)}
    )
    conversations = dict(_conversations(storage, state))
    is_hub = is_hub_id(run.llm.source)
    base = NEW if run.llm.new is not None else run.llm.source.rstrip("/").rpartition("/")[2]
    base = run.llm.source if is_hub else base
    origin = {
        "run": without_folder(encoders.checkpoint_name(storage, TRAINING, state["step"])),
        "base_model": base,
        "base_revision": revision,
        "tune": run.llm.tune,
    }
    trained = Trained(
        llm=llm.eval(),
        llm_class=run.llm.model,
        projector=projector,
        encoder=_encoder(job, run, state, conversations),
        scene=run.scene,
        chat=chat,
        feature_dtype=STORED if run.encoder is None else COMPUTED,
        provenance=origin,
    )
    return LlmRun(storage, run, state, conversations, trained, base, is_hub, revision)


def _check(job: ExportJob, run: FinetuneLlmJob) -> None:
    """What can be said without opening anything else."""
    if job.stage not in (None, TRAINING):
        raise ConfigError(f"stage is {job.stage!r}.", f"A run of a language model has {TRAINING} alone.")
    if job.weights is not EncoderWeights.target:
        raise ConfigError(
            f"weights is {job.weights.value}, and {job.run}, a run of a language model, has one model.",
            "Leave it out.",
        )
    if job.adapters is Adapters.separate and run.llm.tune != LORA:
        raise ConfigError(
            f"adapters is separate, and {job.run} (llm.tune={run.llm.tune}) has no adapters.",
            "Use adapters=merged.",
        )
    if job.adapters is Adapters.merged and run.llm.trust_remote_code:
        raise ConfigError(
            f"{job.run} was trained with llm.trust_remote_code: a merged folder would need that code.",
            "Use adapters=separate, where it was tuned with LoRA.",
        )
    if job.encoder is not None and (run.encoder is not None or run.scene.tokens == NONE):
        why = "looks at no scene" if run.scene.tokens == NONE else "was trained with its own encoder"
        raise ConfigError(f"encoder is given, and {job.run} {why}.", "Leave it out.")


def _revision(run: FinetuneLlmJob, state: dict[str, Any], uri: str) -> str:
    """Of the model that was tuned.

    Raises:
        ConfigError: another one is there now.
    """
    trained_on = str(state["notes"]["config"]["weights"])
    if run.llm.new is not None:
        return trained_on
    try:
        found = revision_of(local(run.llm, run.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    if not same_revision(trained_on, found):
        raise ConfigError(
            f"llm.source {run.llm.source} has weights {found} now, {uri} was trained on {trained_on}.",
            "Put the model there that it was trained on.",
        )
    return trained_on


def _fill(llm: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Give a model what was trained of it.

    Raises:
        CheckpointError: that is of another model.
    """
    own = {name: p for name, p in llm.named_parameters() if p.requires_grad}
    shapes = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    if differ := sorted((own.keys() ^ weights.keys()) | set(shapes)):
        raise CheckpointError(
            f"{where}: its weights are of another model: {LLM}{differ[0]} is in one of the two, or of "
            "another shape.",
            "Use the version of this program that wrote it.",
        )
    llm.load_state_dict(weights, strict=False)


def _projector(weights: dict[str, Tensor]) -> nn.Sequential | None:
    if not weights:
        return None
    hidden, width = weights["0.weight"].shape
    made = new_projector(width, hidden, weights["2.weight"].shape[0])
    made.load_state_dict(weights)
    return made


def _conversations(storage: Storage, state: dict[str, Any]) -> Iterator[tuple[str, Manifest]]:
    """The data sets of conversations of the run's folder that fit the checkpoint's model and encoder."""
    said = state["notes"]["config"]
    for key in sorted(key for key, _ in storage.list() if key.startswith(f"{FOLDER}/")):
        if not key.endswith(f"/{manifests.MANIFEST_KEY}"):
            continue
        folder = key.removesuffix(f"/{manifests.MANIFEST_KEY}")
        manifest = manifests.load(storage.child(folder))
        recipe = manifest.attributes["recipe"]
        if (recipe["model"], recipe["encoder"]) == (said["weights"], said["encoder"]):
            yield folder, manifest


def _encoder(
    job: ExportJob, run: FinetuneLlmJob, state: dict[str, Any], conversations: dict[str, Manifest]
) -> SceneEncoder | None:
    """The encoder whose tokens the model reads.

    Raises:
        ConfigError: it is not at hand, or another one is.
    """
    if run.scene.tokens == NONE:
        return None
    if run.encoder is not None:
        return encoders.load(job.run, job.storage, step=state["step"])
    digest = state["notes"]["config"]["encoder"]
    records = [each.attributes["encoder"] for each in conversations.values()]
    source = job.encoder or next((str(each["run"]) for each in records if each), "")
    named = None if job.encoder else encoders.named_checkpoint(source)
    give = "Name the run or export of the encoder that the features were made with in encoder."
    try:
        if named:
            run_uri, stage, step = named
            found = encoders.load(run_uri, job.storage, stage=stage, step=step)
        else:
            found = encoders.load(source, job.storage)
    except PlinthError as error:
        if job.encoder:
            raise
        raise ConfigError(
            f"The encoder {digest} of the features that {job.run} was trained on is not at hand: "
            f"{error.problem}",
            give,
        ) from None
    if weights_digest(found) != digest:
        raise ConfigError(
            f"{source} is the encoder {weights_digest(found)}, {job.run} was trained on features of "
            f"{digest}.",
            give,
        )
    return found
