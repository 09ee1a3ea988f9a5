"""The encoder's configuration, as transformers keeps one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from poma3d.export.encoder import SceneEncoder
from poma3d.export.fields import MODEL_TYPE, check_keys, provenance_of, shape_of, to_keys
from poma3d.export.search import Provenance
from poma3d.network.vit import VitShape

THEIRS = frozenset(
    {
        "model_type", "auto_map", "torch_dtype", "num_labels", "name_or_path", "_name_or_path",
        "_commit_hash", "attn_implementation", "_attn_implementation", "experts_implementation",
        "output_attentions", "quantization_config", "per_layer_config",
    }
)  # fmt: skip
"""Keys of transformers' own that are no fields of its configuration."""


class Poma3dConfig(PreTrainedConfig):
    """The sizes of an encoder and where it comes from.

    None of the keys has a default: a config.json that lacks one, or has one that is not known, is refused
    (`poma3d.export.fields`). Lengths are in pixels, `image_size` is (H, W).
    """

    model_type: ClassVar[str] = MODEL_TYPE

    format_version: int
    image_size: list[int] | tuple[int, ...]
    patch_size: int
    num_channels: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    pooling: str
    projection_dim: int
    input_gain: float
    provenance: dict[str, Any]

    @classmethod
    def of(cls, encoder: SceneEncoder) -> Poma3dConfig:
        """The configuration of a trained encoder."""
        return cls(**to_keys(encoder.vit.shape, encoder.vit.patch_embed.gain, encoder.provenance))

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, which would keep an unknown key and say of a missing one only that it is.

        Raises:
            ValueError: a folder of another version, missing or unknown keys, or values that no encoder has.
        """
        check_keys(config_dict, THEIRS | {field.name for field in fields(PreTrainedConfig)})
        shape_of(config_dict)
        provenance_of(config_dict)
        return super().from_dict(config_dict, **kwargs)

    @property
    def shape(self) -> VitShape:
        """The sizes as the encoder's module takes them."""
        return shape_of(vars(self))

    @property
    def origin(self) -> Provenance:
        """Where the encoder comes from."""
        return provenance_of(vars(self))
