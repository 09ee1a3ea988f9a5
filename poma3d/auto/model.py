"""The encoder as a model of transformers.

Legend: B scenes, V views, H W pixels of the encoder's grid, P patches, D width, E joint space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from transformers.utils import ModelOutput

from poma3d.auto.config import Poma3dConfig
from poma3d.auto.whole import WholeModel
from poma3d.export import search
from poma3d.export.arrays import Array, as_tensor
from poma3d.export.encoder import SceneEncoder, encode
from poma3d.export.search import Ranking
from poma3d.network.vit import VisionTransformer
from poma3d.pretrained.teacher import Teacher


@dataclass
class Poma3dOutput(ModelOutput):
    """What a scene's views are turned into."""

    features: Tensor | None = None
    """[B, V, E] float32, unit length: to be compared with the teacher's text features."""
    tokens: Tensor | None = None
    """[B, V, P, D] patch tokens of the last layer, row by row, in the dtype of the weights."""
    projected: Tensor | None = None
    """[B, V, E] float32: `features` before they are brought to unit length."""


class Poma3dModel(WholeModel):
    """Point maps of scenes -> features and patch tokens.

    It computes what `poma3d.export.load(folder)` does, and lets gradients through, so that it can be tuned
    as a part of another model. With `requires_grad_(False)` its features are the same bits; while the weights
    can be trained, torch rounds a product of the attention pooling (SigLIP's) otherwise, by less than 1e-6.
    """

    config_class = Poma3dConfig
    base_model_prefix = "poma3d"
    main_input_name = "point_maps"
    _no_split_modules = ["Block", "AttentionPool"]  # noqa: RUF012 - transformers declares it as a list
    _supports_sdpa = True

    def __init__(self, config: Poma3dConfig) -> None:
        super().__init__(config)
        self.vit = VisionTransformer(config.shape, config.input_gain)
        self._teacher: tuple[str, Teacher] | None = None
        self.post_init()

    @classmethod
    def of(cls, encoder: SceneEncoder) -> Poma3dModel:
        """A trained encoder's weights (copied) as this model, in evaluation mode."""
        model = cls(Poma3dConfig.of(encoder))
        model.vit.load_state_dict(encoder.vit.state_dict())
        return model.eval()

    def forward(
        self,
        point_maps: Tensor,
        rgb: Tensor | None = None,
        chunk_views: int = 256,
        return_dict: bool | None = None,
    ) -> Poma3dOutput | tuple[Tensor, ...]:
        """Encode scenes.

        Args:
            point_maps: floating [B, V, H, W, 3], world coordinates in metres, z-up, (0, 0, 0) where there is
                none.
            rgb: not read: the encoder sees geometry alone. It is here so that all that the processor
                returns can be handed on.
            chunk_views: views per pass.
            return_dict: False for a tuple of features, tokens, projected.

        Raises:
            ValueError: another number of dimensions or image size.
        """
        if not point_maps.is_floating_point():
            raise ValueError(f"point maps must be floating-point metres, got {point_maps.dtype}")
        found = encode(self.vit, point_maps.to(self.device), chunk_views)
        output = Poma3dOutput(found.features, found.tokens, found.projected)
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()

    def rank(
        self, scenes: Poma3dOutput | Tensor, text: str | Array, teacher: str | Path | None = None
    ) -> Ranking:
        """Views and scenes by how well they fit a text.

        Args:
            scenes: features, [B, V, E].
            text: words, or their features [E] from the teacher's text tower.
            teacher: folder or hub id of the teacher, where it is not what the folder names; it must have the
                revision that the encoder learnt from.

        Raises:
            ValueError: the teacher cannot be opened here, or an empty text.
        """
        features = scenes if isinstance(scenes, Tensor) else scenes.features
        assert features is not None, "the model always gives features"
        if isinstance(text, str):
            text = search.text_features(self._opened(teacher), text)
        return search.rank(features, as_tensor("text", text, features.device))

    def _opened(self, teacher: str | Path | None) -> Teacher:
        origin = self.config.origin
        source = str(teacher) if teacher is not None else origin.teacher_source
        if self._teacher is None or self._teacher[0] != source:
            opened = search.open_teacher(replace(origin, teacher_source=source), self.device)
            self._teacher = (source, opened)
        return self._teacher[1]
