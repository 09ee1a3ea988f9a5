"""Writes the folder of a language model: merged, which transformers loads, or adapters and parts apart."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from poma3d.auto.folder import ONE_FILE, without_paths
from poma3d.auto.folder import save as save_encoder
from poma3d.auto.language.config import KEYS, Poma3dLlmConfig, check_values, scene_keys
from poma3d.auto.language.model import Poma3dLlm
from poma3d.auto.language.processor import CHAT_KEYS, Poma3dLlmProcessor
from poma3d.export.encoder import SceneEncoder
from poma3d.export.fields import FORMAT_VERSION, check_keys, to_keys
from poma3d.export.folder import load as load_encoder
from poma3d.llm.adapters import merge_adapters, save_adapters
from poma3d.llm.chat import Chat
from poma3d.llm.config import AdapterConfig
from poma3d.llm.model import drop_towers, new_projector, width_of
from poma3d.pretrained.folder import share
from poma3d.pretrained.loading import load_module, reported
from poma3d.seen.config import VIEWS, SceneTokensConfig

PROJECTOR, ENCODER = "projector.safetensors", "encoder"
PARTS = "poma3d_llm.json"
"""Beside adapters: the keys of a merged folder's config.json, but for the language model's own."""
OF_THIS_MACHINE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""Keys of a language model's own configuration that are not handed on."""


@dataclass(frozen=True)
class Trained:
    """A trained language model with all that it answers with."""

    llm: nn.Module
    """Of `poma3d.llm.model`, adapters included."""
    llm_class: str
    projector: nn.Sequential | None
    encoder: SceneEncoder | None
    scene: SceneTokensConfig
    chat: Chat
    feature_dtype: str
    """What features are rounded to before the projector."""
    provenance: dict[str, Any]
    """For people; without folders of this machine."""


def save_merged(trained: Trained, folder: Path) -> None:
    """Write config.json, generation_config.json, processor, tokenizer and model.safetensors; the adapters of
    `trained.llm` are folded into its weights."""
    merge_adapters(trained.llm)
    model = whole(trained)
    model.save_pretrained(folder, max_shard_size=ONE_FILE)
    processor(trained).save_pretrained(folder)
    share(folder)


def save_separate(
    trained: Trained, adapters: AdapterConfig, base: str, revision: str | None, folder: Path
) -> None:
    """Write the adapters as peft has them, `projector.safetensors` (of nn.Sequential: linear, GELU, linear),
    `encoder/`, which transformers and `poma3d.export` load, and what `join` makes one model of them by.

    Args:
        base: what names the model that was tuned.
        revision: its commit, of a hub id.
    """
    from safetensors.torch import save_file

    save_adapters(trained.llm, adapters, base, revision, folder)
    if trained.projector is not None:
        weights = {name: w.detach().cpu().contiguous() for name, w in trained.projector.state_dict().items()}
        save_file(weights, folder / PROJECTOR, metadata={"format": "pt"})
    if trained.encoder is not None:
        save_encoder(trained.encoder, folder / ENCODER)
    (folder / PARTS).write_text(json.dumps(_keys(trained), indent=2) + "\n")
    _generation(trained.chat).save_pretrained(folder)
    processor(trained).save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / PARTS).stat().st_mode)


def join(base: PreTrainedModel, folder: Path | str) -> Poma3dLlm:
    """The model that adapters were trained with, from a folder of `save_separate`.

    Args:
        base: the language model that was tuned, of its own class of transformers, as it was published; the
            adapters are folded into its weights, and its image tower is dropped.

    Raises:
        ValueError: no such folder, one that is not whole, or adapters of another model.
    """
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / PARTS).is_file():
        raise ValueError(f"{folder} has no {PARTS}: give the output of `poma export adapters=separate`")
    said: dict[str, Any] = json.loads((folder / PARTS).read_text())
    keys = {**said, "llm": base.config.to_dict()}
    check_keys(keys, frozenset(), KEYS)
    check_values(keys)
    with reported(str(folder), ""):
        PeftModel.from_pretrained(base, str(folder))
    merge_adapters(base)
    drop_towers(base)
    projector = None
    encoder = load_encoder(folder / ENCODER) if said["encoder"] is not None else None
    if encoder is not None:
        width = encoder.vit.shape.joint if said["scene"]["tokens"] == VIEWS else encoder.vit.shape.width
        projector = new_projector(width, said["projector_width"], width_of(base))
        load_module(projector, [folder / PROJECTOR], str(folder / PROJECTOR))
    return _assembled(base, said, projector, encoder, GenerationConfig.from_pretrained(folder))


def whole(trained: Trained) -> Poma3dLlm:
    """The parts as one model, not copied, in evaluation mode."""
    said, generation = _keys(trained), _generation(trained.chat)
    return _assembled(trained.llm, said, trained.projector, trained.encoder, generation)


def _keys(trained: Trained) -> dict[str, Any]:
    """The keys of the configuration, but for the language model's own."""
    encoder, projector = trained.encoder, trained.projector
    of_encoder = None
    if encoder is not None:
        vit = encoder.vit
        of_encoder = to_keys(vit.shape, vit.patch_embed.gain, without_paths(encoder.provenance))
    return {
        "format_version": FORMAT_VERSION,
        "llm_class": trained.llm_class,
        "encoder": of_encoder,
        "scene": scene_keys(trained.scene),
        "projector_width": 0 if projector is None else projector[0].out_features,
        "feature_dtype": trained.feature_dtype,
        "provenance": trained.provenance,
    }


def _generation(chat: Chat) -> GenerationConfig:
    """Greedy, to the end of the answer."""
    stops = list(chat.stop_ids)
    return GenerationConfig(
        do_sample=False, max_new_tokens=chat.config.max_answer_tokens, eos_token_id=stops,
        pad_token_id=stops[0],
    )  # fmt: skip


def _assembled(
    llm: Any,
    said: dict[str, Any],
    projector: nn.Sequential | None,
    encoder: SceneEncoder | None,
    generation: GenerationConfig,
) -> Poma3dLlm:
    theirs = {key: value for key, value in llm.config.to_dict().items() if key not in OF_THIS_MACHINE}
    with torch.device("meta"):
        model = Poma3dLlm(Poma3dLlmConfig(**said, llm=theirs))
    model.llm, model.projector = llm, projector
    model.vit = None if encoder is None else encoder.vit
    model.generation_config = generation
    return model.eval()


def processor(trained: Trained) -> Poma3dLlmProcessor:
    """What goes with it."""
    chat = asdict(trained.chat.config)
    size = None if trained.encoder is None else trained.encoder.vit.shape.image_size
    return Poma3dLlmProcessor(trained.chat.tokenizer, size, {key: chat[key] for key in CHAT_KEYS})
