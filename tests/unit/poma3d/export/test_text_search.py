from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from poma3d import export
from poma3d.export import Provenance, SceneEncoder
from poma3d.pretrained.config import TeacherConfig
from poma3d.pretrained.teacher import load_teacher
from tests.helpers import tiny


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_teacher(tmp_path_factory.mktemp("teachers") / "tiny-clip", tiny.clip_model())


def exported(folder: Path, provenance: Provenance) -> Path:
    export.save(SceneEncoder(tiny.tower().build(), provenance), folder)
    return folder


def scenes(fits: torch.Tensor) -> torch.Tensor:
    """Features of two scenes of three views; view 2 of scene 1 is what a text says."""
    features = torch.nn.functional.normalize(
        torch.randn(2, 3, tiny.JOINT, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    features[1, 2] = fits
    return features


def test_a_text_finds_its_view_with_the_teacher_of_the_export(teacher_folder: Path, tmp_path: Path) -> None:
    teacher = load_teacher(TeacherConfig(str(teacher_folder)))
    text = torch.from_numpy(teacher.encode_texts(["a red chair"])[0]).float()
    named = Provenance("tiny-clip", teacher.revision, teacher_source=str(teacher_folder))
    encoder = export.load(exported(tmp_path, named))
    assert encoder._teacher is None  # opened at the first text
    found = encoder.rank(scenes(text), "a red chair")
    assert found.views[1, 0] == 2
    assert found.scenes.tolist() == found.scene_scores.argsort(descending=True).tolist()
    views = scenes(text).numpy().astype(np.float64)
    np.testing.assert_allclose(found.view_scores, views @ text.double().numpy(), atol=1e-3)
    mean = views.mean(1) / np.linalg.norm(views.mean(1), axis=-1, keepdims=True)
    np.testing.assert_allclose(found.scene_scores, mean @ text.double().numpy(), atol=1e-3)
    assert found.views.tolist() == encoder.rank(scenes(text), text).views.tolist()
    encoded = encoder(torch.rand(1, 2, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, 3))
    assert (
        encoder.rank(encoded, text).view_scores.tolist() == encoder.rank(encoded.features, text)[2].tolist()
    )


def test_a_teacher_may_have_moved(teacher_folder: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path, Provenance("tiny-clip", "", teacher_source=str(tmp_path / "gone")))
    given = scenes(torch.zeros(tiny.JOINT))
    with pytest.raises(ValueError, match=r"was in the folder .*gone, which is not here.*teacher="):
        export.load(folder).rank(given, "a chair")
    assert export.load(folder, teacher=teacher_folder).rank(given, "a chair").views.shape == (2, 3)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        (Provenance("x"), "does not say where its teacher is"),
        (Provenance("x", teacher_source="s3://bucket/x"), "download it"),
        (Provenance("x", teacher_source="x", teacher_kind="mine:Own"), "a class of your own"),
    ],
)
def test_a_teacher_that_cannot_be_opened_is_said(
    provenance: Provenance, message: str, tmp_path: Path
) -> None:
    encoder = export.load(exported(tmp_path, provenance))
    given = scenes(torch.zeros(tiny.JOINT))
    with pytest.raises(ValueError, match=message):
        encoder.rank(given, "a chair")
    assert encoder.rank(given, np.ones(tiny.JOINT)).scenes.shape == (2,)
    with pytest.raises(ValueError, match=r"features of \(3,\), the views of 16"):
        encoder.rank(given, np.ones(3))


def test_weights_of_another_revision_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    named = Provenance("tiny-clip", "0" * 16, teacher_source=str(teacher_folder))
    with pytest.raises(ValueError, match="0000000000000000"):
        export.load(exported(tmp_path, named)).rank(scenes(torch.zeros(tiny.JOINT)), "a chair")
