"""An encoder's folder: `model.safetensors` and `config.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from poma3d.export.encoder import Provenance, SceneEncoder
from poma3d.network.vit import VisionTransformer, VitShape
from poma3d.pretrained.folder import share
from poma3d.pretrained.loading import load_module

FORMAT = "poma3d-encoder"
FORMAT_VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


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
    vit = VisionTransformer(VitShape.from_dict(config["shape"]), config["input_gain"])
    load_module(vit, [folder / WEIGHTS], str(folder / WEIGHTS))
    provenance = Provenance(**config["provenance"])
    if teacher is not None:
        provenance = replace(provenance, teacher_source=str(teacher))
    return SceneEncoder(vit, provenance).to(device)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; give the folder of an exported encoder") from error
    found = (config.get("format"), config.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{path} is of format {found}, expected {(FORMAT, FORMAT_VERSION)}: export again")
    return config
