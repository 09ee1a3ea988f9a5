"""What pretraining needs of a teacher, read from its folder without transformers.

Importing transformers and building both towers takes five seconds of CPU in every process that trains; of
all that, pretraining uses the image tower. A plain CLIP or SigLIP folder whose tensors are just the expected
ones is read directly. For everything else (`read_outline` gives None) the teacher is loaded as usual, which
also finds the words for what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from poma3d.network.vit import ImageTower
from poma3d.pretrained.config import AUTO, CLIP, SIGLIP, TeacherConfig
from poma3d.pretrained.folder import CONFIG, INDEX, PREPROCESSOR, SAFETENSORS, TOKENIZER, folder_revision
from poma3d.pretrained.towers import tower_from_state

PARTS = ("weight", "bias")
POSITION_IDS = ".position_ids"
"""How a computed buffer ends that older releases of transformers saved."""


@dataclass(frozen=True)
class TeacherOutline:
    """Which teacher it is, and its image tower."""

    name: str
    revision: str
    tower: ImageTower


def read_outline(config: TeacherConfig) -> TeacherOutline | None:
    """The outline of a local CLIP or SigLIP in one safetensors file; None where that is not what lies there.

    Raises:
        UnusableModel: the folder is damaged, or its weights are not those of `revision`.
    """
    folder = Path(config.source)
    single = (folder / SAFETENSORS).is_file() and not (folder / INDEX).is_file()
    if not single or config.trust_remote_code or config.allow_tensors:
        return None
    revision = folder_revision(folder, config.revision, "teacher", (TOKENIZER, PREPROCESSOR))
    try:
        tower = _tower(folder, config.kind)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        return None
    return None if tower is None else TeacherOutline(folder.name, revision, tower)


def _tower(folder: Path, kind: str) -> ImageTower | None:
    from safetensors import safe_open

    theirs = json.loads((folder / CONFIG).read_text())
    family = theirs["model_type"]
    is_plain = family in (CLIP, SIGLIP) and "auto_map" not in theirs
    if not is_plain or kind not in (AUTO, family):
        return None
    with safe_open(folder / SAFETENSORS, "pt") as file:
        names: list[str] = file.keys()
        found = {name for name in names if not name.endswith(POSITION_IDS)}
        if found != set(_names(family, theirs)):
            return None
        state = {n: file.get_tensor(n) for n in found if not n.startswith("text_")}
    vision = SimpleNamespace(**theirs["vision_config"])
    wanted = SimpleNamespace(vision_config=vision, projection_dim=theirs.get("projection_dim"))
    tower = tower_from_state(state, wanted)
    with torch.device("meta"):
        module = tower.build_empty()
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return tower if shapes == {name: tensor.shape for name, tensor in tower.state.items()} else None


def _names(family: str, theirs: dict[str, Any]) -> Iterator[str]:
    """Every tensor of a CLIP or a SigLIP, by transformers' names."""
    yield from ("logit_scale", "vision_model.embeddings.patch_embedding.weight")
    for half in ("text", "vision"):
        yield f"{half}_model.embeddings.position_embedding.weight"
        for i in range(theirs[f"{half}_config"]["num_hidden_layers"]):
            layer = f"{half}_model.encoder.layers.{i}"
            yield from _pairs(f"{layer}.layer_norm1", f"{layer}.layer_norm2", f"{layer}.mlp.fc1")
            yield from _pairs(f"{layer}.mlp.fc2", *(f"{layer}.self_attn.{x}_proj" for x in _LETTERS))
    yield "text_model.embeddings.token_embedding.weight"
    yield from _pairs("text_model.final_layer_norm", "vision_model.post_layernorm")
    if family == CLIP:
        yield from ("text_projection.weight", "visual_projection.weight")
        yield "vision_model.embeddings.class_embedding"
        yield from _pairs("vision_model.pre_layrnorm")
        return
    head = "vision_model.head"
    yield from ("logit_bias", "vision_model.embeddings.patch_embedding.bias", f"{head}.probe")
    yield from (f"{head}.attention.in_proj_{part}" for part in PARTS)
    yield from _pairs("text_model.head", f"{head}.attention.out_proj", f"{head}.layernorm")
    yield from _pairs(f"{head}.mlp.fc1", f"{head}.mlp.fc2")


_LETTERS = ("q", "k", "v", "out")


def _pairs(*modules: str) -> Iterator[str]:
    for module in modules:
        yield from (f"{module}.{part}" for part in PARTS)
