"""Writes the folder that transformers loads; `poma export` adds the model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from poma3d.auto.model import Poma3dModel
from poma3d.auto.processor import Poma3dProcessor
from poma3d.export.encoder import SceneEncoder
from poma3d.export.search import Provenance
from poma3d.pretrained.folder import share

ONE_FILE = "1000GB"
"""Largest file of weights: never more than one, which `poma3d.export.load` reads, too."""


def save(encoder: SceneEncoder, folder: Path | str) -> None:
    """Write config.json, processor_config.json and model.safetensors.

    Paths of this machine in the encoder's provenance are left out: the folder is for others.
    """
    folder = Path(folder)
    handed_on = SceneEncoder(encoder.vit, without_paths(encoder.provenance))
    Poma3dModel.of(handed_on).save_pretrained(folder, max_shard_size=ONE_FILE)
    Poma3dProcessor(encoder.vit.shape.image_size).save_pretrained(folder)
    share(folder)


def without_paths(provenance: Provenance) -> Provenance:
    """The same without folders of this machine: of the run its last names, of the teacher its name alone."""
    source = provenance.teacher_source
    return replace(
        provenance,
        run=without_folder(provenance.run),
        teacher_source="" if source and is_folder(source) else source,
    )


def is_folder(location: str) -> bool:
    """Whether it is an absolute path of this machine."""
    return "://" not in location and Path(location).is_absolute()


def without_folder(run: str) -> str:
    """`/home/me/runs/rooms/main step 40` -> `rooms/main step 40`; a URI as it is."""
    return "/".join(Path(run).parts[-2:]) if is_folder(run) else run
