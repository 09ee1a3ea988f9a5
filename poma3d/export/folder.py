"""An encoder's folder: `model.safetensors` and `config.json`.

Two formats are read. `save` writes our own; `poma3d.auto.save` writes the one that transformers loads, with
other keys and the weights' names behind `PREFIX`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from poma3d.export import fields
from poma3d.export.encoder import Provenance, SceneEncoder
from poma3d.network.vit import VisionTransformer, VitShape
from poma3d.pretrained.folder import share
from poma3d.pretrained.loading import load_module

FORMAT = "poma3d-encoder"
FORMAT_VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PREFIX = "vit."
"""Of the weights' names in a folder for transformers."""


def save(encoder: SceneEncoder, folder: Path | str) -> None:
    """Write an encoder's folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: p.detach().cpu().contiguous() for name, p in encoder.vit.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shape": encoder.vit.shape.to_dict(),
        "input_gain": encoder.vit.patch_embed.gain,
        "provenance": asdict(encoder.provenance),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    share(folder)


def load(
    folder: Path | str, device: str | torch.device = "cpu", teacher: Path | str | None = None
) -> SceneEncoder:
    """Read an encoder's folder.

    Args:
        device: where the encoder computes.
        teacher: folder or hub id of the teacher for `SceneEncoder.rank`, where it is not at the place that
            the export names. It is opened at the first text, and must have the revision that the encoder
            learnt from.

    Raises:
        ValueError: no such folder, or one of another format; says which file.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    if config.get("model_type") == fields.MODEL_TYPE:
        vit, provenance = _of_transformers(folder, config)
    else:
        vit = VisionTransformer(VitShape.from_dict(config["shape"]), config["input_gain"])
        load_module(vit, [folder / WEIGHTS], str(folder / WEIGHTS))
        provenance = Provenance(**config["provenance"])
    if teacher is not None:
        provenance = replace(provenance, teacher_source=str(teacher))
    return SceneEncoder(vit, provenance).to(device)


def _of_transformers(folder: Path, config: dict[str, Any]) -> tuple[VisionTransformer, Provenance]:
    try:
        fields.check_keys(config)
        shape, provenance = fields.shape_of(config), fields.provenance_of(config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    vit = VisionTransformer(shape, config[fields.GAIN])
    load_module(nn.ModuleDict({PREFIX.rstrip("."): vit}), [folder / WEIGHTS], str(folder / WEIGHTS))
    return vit, provenance


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; give the folder of an exported encoder") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no config.json: give the folder of an exported encoder")
    if config.get("model_type") == fields.MODEL_TYPE:
        return config
    if config.get("model_type") == fields.LLM_MODEL_TYPE:
        raise ValueError(
            f"{path.parent} is a language model that answers from scenes, no encoder: load it with "
            "`import poma3d.auto` and transformers.AutoModelForCausalLM.from_pretrained"
        )
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path.parent} is no exported encoder: its {path.name} has no format {FORMAT}; "
            "give the output of `poma export`"
        )
    if (found := config.get("format_version")) != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format_version {found!r}, this package reads {FORMAT_VERSION}: {fields.OTHER_FORMAT}"
        )
    return config
