"""Writes the folder of a language model: merged, which transformers loads, or adapters and parts apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from poma3d.auto.folder import ONE_FILE, without_paths
from poma3d.auto.folder import save as save_encoder
from poma3d.auto.language.config import Poma3dLlmConfig, scene_keys
from poma3d.auto.language.model import Poma3dLlm
from poma3d.auto.language.processor import CHAT_KEYS, Poma3dLlmProcessor
from poma3d.export.encoder import SceneEncoder
from poma3d.export.fields import FORMAT_VERSION, to_keys
from poma3d.llm.adapters import merge_adapters, save_adapters
from poma3d.llm.chat import Chat
from poma3d.llm.config import AdapterConfig, SceneTokensConfig
from poma3d.pretrained.folder import share

PROJECTOR, ENCODER = "projector.safetensors", "encoder"
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
    """Write the adapters as peft has them, `projector.safetensors` (of nn.Sequential: linear, GELU, linear)
    and `encoder/`, which transformers and `poma3d.export` load.

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
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "adapter_config.json").stat().st_mode)


def whole(trained: Trained) -> Poma3dLlm:
    """The parts as one model, not copied, in evaluation mode."""
    llm: Any = trained.llm
    theirs = {key: value for key, value in llm.config.to_dict().items() if key not in OF_THIS_MACHINE}
    encoder, projector = trained.encoder, trained.projector
    config = Poma3dLlmConfig(
        format_version=FORMAT_VERSION,
        llm_class=trained.llm_class,
        llm=theirs,
        encoder=None
        if encoder is None
        else to_keys(encoder.vit.shape, encoder.vit.patch_embed.gain, without_paths(encoder.provenance)),
        scene=scene_keys(trained.scene),
        projector_width=0 if projector is None else projector[0].out_features,
        feature_dtype=trained.feature_dtype,
        provenance=trained.provenance,
    )
    with torch.device("meta"):
        model = Poma3dLlm(config)
    model.llm, model.projector = trained.llm, projector
    model.vit = None if encoder is None else encoder.vit
    stops = list(trained.chat.stop_ids)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=trained.chat.config.max_answer_tokens, eos_token_id=stops,
        pad_token_id=stops[0],
    )  # fmt: skip
    return model.eval()


def processor(trained: Trained) -> Poma3dLlmProcessor:
    """What goes with it."""
    chat = asdict(trained.chat.config)
    size = None if trained.encoder is None else trained.encoder.vit.shape.image_size
    return Poma3dLlmProcessor(trained.chat.tokenizer, size, {key: chat[key] for key in CHAT_KEYS})
