"""The configs of the model's modules, as jobs compose them."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from poma3d.network.config import (
    AugmentConfig,
    EmaConfig,
    EncoderConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    PredictorConfig,
    TuningConfig,
)
from poma3d.network.model import Temperature
from poma3d.pretrained.config import TeacherConfig

CONFIGS = [
    ModelConfig, LossConfig, AugmentConfig, EncoderConfig, TuningConfig, PredictorConfig, MaskConfig,
    EmaConfig, TeacherConfig,
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_pass_through_omegaconf(config: type[Any]) -> None:
    assert OmegaConf.to_object(OmegaConf.structured(config)) == config()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_its_help_text(config: type[Any]) -> None:
    tree = ast.parse(inspect.getsource(importlib.import_module(config.__module__)))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == config.__name__]
    helped = {
        field.target.id
        for field, after in zip(found.body, found.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }
    assert helped == {f.name for f in dataclasses.fields(config)}


def test_the_defaults_are_the_paper_s_configuration() -> None:
    model, loss = ModelConfig(), LossConfig()
    tuning = model.encoder.tuning
    assert (tuning.mode, tuning.rank, tuning.alpha, tuning.dropout) == ("lora", 32, 64, 0.05)
    assert sorted(tuning.targets) == ["fc1", "fc2", "k", "q", "v"]
    assert (model.predictor.layers, model.predictor.width, model.predictor.heads) == (6, 384, 12)
    assert (loss.view, loss.scene, loss.jepa, loss.jepa_distance) == (1, 1, 1, "chamfer")
    # what is not in the paper is off
    assert (loss.dense, model.encoder.input_gain, model.augment.rotate_z_degrees) == (0, 1, 0)
    assert not model.train_logit_scale


def test_the_temperature_has_a_dimension_and_is_frozen_unless_told() -> None:
    frozen = Temperature(2.0, trained=False)
    assert frozen.change.shape == (1,)
    assert not frozen.change.requires_grad
    assert Temperature(2.0, trained=True).change.requires_grad


def test_the_temperature_is_exact_in_bfloat16() -> None:
    for model in (Temperature(4.6, trained=False), Temperature(4.6, trained=False).bfloat16()):
        torch.testing.assert_close(model(torch.ones(2)), torch.full((2,), 4.6).exp())


def test_a_temperature_above_100_is_clamped() -> None:
    torch.testing.assert_close(Temperature(9.0, trained=False)(torch.ones(1)), torch.tensor([100.0]))
