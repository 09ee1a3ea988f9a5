"""Where a text was said: SQA3D's localisation task, and the cameras of ScanRefer's annotators.

    SQA3D      situations[]   scene_id, situation, situation_id
               annotations[]  scene_id, situation_id, position {x, y, z}, rotation {_x, _y, _z, _w}
    ScanRefer  [scene_id, object_id, object_name, ann_id, id, camera {position, rotation (three angles),
    lookat}]
               and the texts from ScanRefer's own file

Situation ids are not those of the questions that are asked from there. Positions stay in the frame of their
file; `poma3d.annotations.poses.moved_to_world` takes them out of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from poma3d.annotations.formats import fields
from poma3d.annotations.formats.files import Record
from poma3d.annotations.formats.joined import (
    Keyed,
    Place,
    by_id,
    note_strangers,
    numbered,
    refuse_strangers,
    rows_under,
)
from poma3d.annotations.formats.parts import Opened, Part
from poma3d.annotations.formats.scanrefer import annotation_id, object_name
from poma3d.annotations.formats.sqa3d import pose_of
from poma3d.annotations.notes import BadRow, Notes
from poma3d.annotations.poses import SCANREFER, SQA3D, as_vector, euler_matrix, facing, level_camera
from poma3d.annotations.rows import Annotations, CameraText

APART_M = 1e-6
"""Of a camera and its lookat, below which there is no direction."""
TURNED_DEG = 1.0
"""Between a camera's angles and its lookat, above which they disagree."""


def read_localisation(files: Sequence[Opened]) -> Annotations:
    """Texts with their cameras."""
    notes = Notes("localisation")
    poses = _keyed(files, Part.SQA3D_POSES, "annotations", notes)
    situations = _keyed(files, Part.SQA3D_SITUATIONS, "situations", notes)
    refuse_strangers(poses, situations, "situations")
    for key, (row, place) in poses.items():
        _situation(key, row, place, situations, notes)
    note_strangers(poses, situations, notes, "no pose has this id")
    cameras, texts = (
        by_id([(e.path, numbered(e.content)) for e in files if e.part is part], annotation_id, notes)
        for part in (Part.CAMERAS, Part.SCANREFER)
    )
    refuse_strangers(cameras, texts, "descriptions")
    for key, (row, place) in cameras.items():
        _camera(key, row, place, texts, notes)
    if unseen := [place for key, (_, place) in texts.items() if key not in cameras]:
        notes.odd("texts without a camera", f"{unseen[0][0]}, {unseen[0][1]}", len(unseen))
    return notes.annotations


def _keyed(files: Sequence[Opened], part: Part, key: str, notes: Notes) -> Keyed:
    parts = [(each.path, numbered(rows_under(each.content, key))) for each in files if each.part is part]
    return by_id(parts, lambda row: fields.identifier(row, "situation_id"), notes)


def _text(key: str, name: str, texts: Keyed, place: Place, notes: Notes) -> str:
    """The text of a camera; blank where no file of texts was given."""
    if key in texts:
        return fields.text(texts[key][0], name)
    if texts:
        notes.problem(place[0], f"{place[1]} (id {key})", "no text has this id", kept=True)
    else:
        notes.odd("cameras without a text", f"{place[0]}, {place[1]}")
    return ""


def _situation(key: str, row: Record, place: Place, situations: Keyed, notes: Notes) -> None:
    path, name = place
    try:
        scene_id = fields.text(row, "scene_id")
        if key in situations and situations[key][0].get("scene_id") != scene_id:
            raise BadRow(f"scene {scene_id}, said in {fields.shown(situations[key][0].get('scene_id'))}")
        position, orientation = pose_of(row, f"{path}, {name}", notes)
        text = _text(key, "situation", situations, place, notes)
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", error)
        return
    rotation = level_camera(facing(orientation, SQA3D))
    notes.annotations.counts["SQA3D's situations"] += 1
    notes.annotations.rows.append(
        CameraText(scene_id, text, position, rotation, SQA3D, text_id=key, orientation=orientation)
    )


def _camera(key: str, row: Record, place: Place, texts: Keyed, notes: Notes) -> None:
    path, name = place
    try:
        scene_id = fields.text(row, "scene_id")
        of_object, named = fields.identifier(row, "object_id"), object_name(row)
        text = _text(key, "description", texts, place, notes)
        camera = fields.record(fields.present(row, "camera"), "camera")
        position = fields.vector(fields.present(camera, "position"), "camera.position")
        lookat = fields.vector(fields.present(camera, "lookat"), "camera.lookat")
        direction = np.array([there - here for there, here in zip(lookat, position, strict=True)])
        length = math.hypot(*direction)
        if length < APART_M:
            raise BadRow("camera.lookat is the camera's own position")
        if not math.isfinite(length):
            raise BadRow("camera.lookat is too far from camera.position for a direction")
        angles = fields.vector(camera["rotation"], "camera.rotation") if "rotation" in camera else None
    except BadRow as error:
        notes.problem(path, f"{name} (id {key})", error)
        return
    direction = direction / length
    if angles is not None and -euler_matrix(angles)[:, 2] @ direction < np.cos(np.radians(TURNED_DEG)):
        notes.odd("camera turned away", f"{path}, {name}")
    notes.annotations.counts["cameras of ScanRefer's annotators"] += 1
    notes.annotations.rows.append(
        CameraText(
            scene_id=scene_id,
            text=text,
            position=as_vector(np.array(position)),
            rotation=level_camera(direction),
            frame=SCANREFER,
            text_id=key,
            object_id=of_object,
            object_name=named,
        )
    )
