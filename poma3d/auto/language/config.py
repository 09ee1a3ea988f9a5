"""The configuration of a language model with its encoder and projector, as transformers keeps one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from poma3d.auto.config import THEIRS
from poma3d.export.fields import LLM_MODEL_TYPE, OTHER_FORMAT, check_keys, provenance_of, shape_of
from poma3d.llm.config import LlmConfig
from poma3d.seen.config import NONE, VIEWS, SceneTokensConfig

KEYS = (
    "format_version", "llm_class", "llm", "encoder", "scene", "projector_width", "feature_dtype",
    "provenance",
)  # fmt: skip
"""All keys of ours; none of them has a default."""
SCENE_KEYS = ("tokens", "cell_m", "max_voxels", "shortest_wave_m", "longest_wave_m")
"""Fields of `SceneTokensConfig` that say what a scene becomes."""
FEATURE_DTYPES = ("float16", "float32")


class Poma3dLlmConfig(PreTrainedConfig):
    """What a language model that answers from scenes is made of.

    None of the keys has a default: a config.json that lacks one, or has one that is not known, is refused.
    """

    model_type: ClassVar[str] = LLM_MODEL_TYPE

    format_version: int
    llm_class: str
    """causal or vision_language, as `llm.model` of the job."""
    llm: dict[str, Any]
    """The configuration of the language model, of its own class."""
    encoder: dict[str, Any] | None
    """The keys of the encoder's own config.json; null where no scene is looked at."""
    scene: dict[str, Any]
    """What it becomes: fields of `SceneTokensConfig`."""
    projector_width: int
    """Width of the projector's hidden layer."""
    feature_dtype: str
    """What the encoder's features are rounded to before the projector: float16 where it was trained on stored
    features."""
    provenance: dict[str, Any]
    """Where it comes from, for people: run, base_model, base_revision, tune."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, which would keep an unknown key.

        Raises:
            ValueError: a folder of another version, missing or unknown keys, or values that cannot be.
        """
        check_keys(config_dict, THEIRS | {field.name for field in fields(PreTrainedConfig)}, KEYS)
        check_values(config_dict)
        return super().from_dict(config_dict, **kwargs)

    @property
    def scene_tokens(self) -> SceneTokensConfig:
        """What a scene becomes."""
        return SceneTokensConfig(**self.scene)

    @property
    def encoder_width(self) -> int:
        """Width of a scene token before the projector."""
        assert self.encoder is not None
        shape = shape_of(self.encoder)
        return shape.joint if self.scene["tokens"] == VIEWS else shape.width


def scene_keys(scene: SceneTokensConfig) -> dict[str, Any]:
    """The part of the settings that is handed on."""
    return {key: asdict(scene)[key] for key in SCENE_KEYS}


def check_values(found: Mapping[str, Any]) -> None:
    """Refuse values that cannot be, of checked keys.

    Raises:
        ValueError: naming the key, what was expected, and what to do.
    """
    for key, known in (("llm_class", LlmConfig.MODELS), ("feature_dtype", FEATURE_DTYPES)):
        if found[key] not in known:
            raise ValueError(f"config.json: {key} is {found[key]!r}, expected one of {', '.join(known)}")
    llm, scene, encoder = found["llm"], found["scene"], found["encoder"]
    if not isinstance(llm, Mapping) or not isinstance(llm.get("model_type"), str):
        raise ValueError("config.json: llm is no configuration of a language model: copy the folder again")
    if not isinstance(scene, Mapping) or set(scene) != set(SCENE_KEYS):
        raise ValueError(f"config.json: scene is {scene!r}, expected an object of {', '.join(SCENE_KEYS)}")
    try:
        SceneTokensConfig(**scene).validate()
    except (ValueError, TypeError) as error:
        raise ValueError(f"config.json: {error}: {OTHER_FORMAT}") from None
    if (encoder is None) != (scene["tokens"] == NONE):
        raise ValueError(f"config.json: encoder is {encoder!r}, and scene.tokens is {scene['tokens']!r}")
    if encoder is not None:
        check_keys(encoder)
        shape_of(encoder)
        provenance_of(encoder)
