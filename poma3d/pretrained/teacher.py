"""The frozen teacher: a CLIP-family model that embeds colour images and captions in one space.

Its image tower runs as our own `VisionTransformer`, from the published weights, because it has to
give patch tokens too and because the context encoder starts from the same weights; text runs as
transformers has it. Weights are read from safetensors alone.

Views are resized whole to the tower's square, never cropped: patch (r, c) of the image and of the point map
must show the same pixels.

Legend: n images or texts, h w pixels, E joint space, P patches, D width of the image tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poma3d.losses import layer_norm
from poma3d.network.vit import ImageTower
from poma3d.pretrained.config import AUTO, CLIP, FGCLIP, SIGLIP, TeacherConfig
from poma3d.pretrained.folder import (
    PREPROCESSOR,
    SAFETENSORS,
    TOKENIZER,
    UnusableModel,
    check_parts,
    folder_revision,
)
from poma3d.pretrained.loading import load_transformers, reported
from poma3d.pretrained.towers import FGCLIP_TENSORS, FGCLIP_WEIGHTS, image_tower, long_text_tower

KINDS = (AUTO, CLIP, SIGLIP, FGCLIP)
SHORT_TOKENS, LONG_TOKENS = 77, 248
"""Text lengths of FG-CLIP's own code."""
HALF = 0.5
"""Mean and standard deviation of SigLIP's pixels."""
NEEDED = (TOKENIZER, PREPROCESSOR)
"""Parts that a teacher cannot do without."""


def validate(config: TeacherConfig) -> None:
    """Refuse a teacher that cannot be loaded or must not be.

    Raises:
        ValueError: naming the field and what to do.
    """
    if not config.source:
        raise ValueError("teacher.source is empty: give a folder with safetensors weights or a hub id")
    if config.kind not in KINDS:
        raise ValueError(f"teacher.kind is '{config.kind}'; use one of {', '.join(KINDS)}")
    if config.trust_remote_code and not config.revision:
        raise ValueError(
            "teacher.trust_remote_code runs code that comes with the weights: pin it with teacher.revision "
            "(the commit that you have read)"
        )
    if config.batch_size < 1:
        raise ValueError(f"teacher.batch_size is {config.batch_size}; it must be at least 1")


@dataclass(frozen=True)
class Loaded:
    """What the weights of a teacher come with."""

    model: torch.nn.Module
    tokenizer: Any
    kind: str
    """CLIP, SIGLIP or FGCLIP."""
    revision: str
    mean: Sequence[float]
    """Mean or deviation of the pixels per channel, in [0, 1]."""
    std: Sequence[float]
    long_texts: torch.nn.Module | None = None
    """FG-CLIP's tower for long captions; None where its own code has that mode, and of other kinds."""


class Teacher:
    """A loaded teacher; `load_teacher` makes one."""

    def __init__(
        self, name: str, loaded: Loaded, batch_size: int, device: str | torch.device = "cpu"
    ) -> None:
        self.name, self.revision, self.kind = name, loaded.revision, loaded.kind
        self._tokenizer, self._batch_size = loaded.tokenizer, batch_size
        self._tower = image_tower(loaded.model)
        self._model: Any = loaded.model.to(device).eval().requires_grad_(False)
        self._vision = self._tower.build().to(device).eval().requires_grad_(False)
        self._long_texts: Any = None
        if loaded.long_texts is not None:
            self._long_texts = loaded.long_texts.to(device).eval().requires_grad_(False)
        self._mean = torch.tensor(loaded.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(loaded.std, device=self.device)[:, None, None]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self._model.parameters()).device

    @property
    def embedding(self) -> int:
        """Width of the joint space, E."""
        return self._tower.shape.joint

    @property
    def logit_scale(self) -> float:
        """Logarithm of the temperature factor."""
        return self._tower.logit_scale

    def image_tower(self) -> ImageTower:
        """The image tower's weights, to start an encoder from."""
        return self._tower

    def encode_images(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Unit features float16 [n, E] of images uint8 [n, h, w, 3].

        Raises:
            ValueError: another shape or dtype.
        """
        return self._encode(images, with_tokens=False)[0]

    def image_tokens(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Unit features float16 [n, E] and layer-normed patch tokens float16 [n, P, D] of uint8 [n, h, w, 3].

        The tokens are those of the tower's own square size.

        Raises:
            ValueError: another shape or dtype.
        """
        return self._encode(images, with_tokens=True)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], long: bool = False) -> np.ndarray:
        """Unit features float16 [n, E].

        Args:
            texts: cut at the text tower's length.
            long: FG-CLIP's mode for captions of up to 248 tokens, with another projection.

        Raises:
            ValueError: an empty text, or `long` from a teacher without that mode.
        """
        for i, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"text {i} of {len(texts)} is empty; drop it or give it words")
        if long and self.kind != FGCLIP:
            raise ValueError(f"teacher '{self.name}' ({self.kind}) has no long-caption mode; FG-CLIP has one")
        parts = [
            self._text_features(list(texts[i : i + self._batch_size]), long)
            for i in range(0, len(texts), self._batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.embedding), np.float16)

    def longer_texts(self, texts: Sequence[str], long: bool = False) -> list[int]:
        """Places of the texts that `encode_texts` cuts, with the same `long`."""
        if not texts:
            return []
        limit = self._text_limit(long)
        ids = self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return [i for i, each in enumerate(ids) if len(each) > limit]

    def _text_model(self, long: bool) -> Any:
        return self._long_texts if long and self._long_texts is not None else self._model

    def _text_limit(self, long: bool) -> int:
        """Tokens of a text at most, with those of its begin and end."""
        if self.kind == FGCLIP and self._long_texts is None:
            return LONG_TOKENS if long else SHORT_TOKENS
        return int(self._text_model(long).config.get_text_config().max_position_embeddings)

    def _text_features(self, texts: list[str], long: bool) -> np.ndarray:
        own_code = self.kind == FGCLIP and self._long_texts is None
        model, limit = self._text_model(long), self._text_limit(long)
        # SigLIP's text tower sees its padding. CLIP's is causal and pools before it: no mask is needed,
        # and no padding but to the longest text.
        padding = "max_length" if self.kind == SIGLIP else "longest"
        tokens = self._tokenizer(
            texts, padding=padding, max_length=limit, truncation=True, return_tensors="pt"
        )
        ids = tokens["input_ids"].to(self.device)
        if own_code:
            features = model.get_text_features(ids, walk_short_pos=not long)
        elif long:
            features = model(ids).text_embeds
        else:
            features = model.get_text_features(ids).pooler_output
        return F.normalize(features.float(), dim=-1).half().cpu().numpy()

    @torch.inference_mode()
    def _encode(self, images: np.ndarray | Tensor, with_tokens: bool) -> tuple[np.ndarray, np.ndarray]:
        if images.ndim != 4 or images.shape[-1] != 3 or str(images.dtype).split(".")[-1] != "uint8":
            raise ValueError(f"images must be uint8 [n, h, w, 3], got {images.dtype} {tuple(images.shape)}")
        features, tokens = [], []
        for start in range(0, len(images), self._batch_size):
            chunk = torch.as_tensor(images[start : start + self._batch_size]).to(self.device)
            output = self._vision(self._pixels(chunk))
            features.append(F.normalize(output.pooled.float(), dim=-1).half().cpu().numpy())
            if with_tokens:
                tokens.append(layer_norm(output.tokens).half().cpu().numpy())
        shape = self._tower.shape
        return (
            np.concatenate(features) if features else np.empty((0, shape.joint), np.float16),
            np.concatenate(tokens) if tokens else np.empty((0, shape.patches, shape.width), np.float16),
        )

    def _pixels(self, images: Tensor) -> Tensor:
        """uint8 [n, h, w, 3] -> normalised float32 [n, 3, H, W]."""
        pixels = images.permute(0, 3, 1, 2).float()
        size = self._tower.shape.image_size
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).round().clamp(0, 255)
        return (pixels / 255 - self._mean) / self._std


def load_teacher(config: TeacherConfig, device: str | torch.device = "cpu") -> Teacher:
    """Load model, tokenizer and pixel statistics, in float32.

    Raises:
        ValueError: no such model, no safetensors weights, weights that are not those of its class, no
            tokenizer or preprocessor, a kind that is not supported, remote code without permission, or
            a folder whose weights are not those of `revision`.
    """
    validate(config)
    folder = Path(config.source)
    found = folder_revision(folder, config.revision, "teacher", NEEDED) if folder.is_dir() else None
    with reported(config.source, "teacher"):
        loaded = _load(config, found)
    return Teacher(folder.name if found else config.source, loaded, config.batch_size, device)


def _load(config: TeacherConfig, found: str | None) -> Loaded:
    """Args: found: revision of a local folder, None for a hub id."""
    from transformers import AutoConfig, AutoTokenizer

    commit = None if found else config.revision
    where: dict[str, Any] = {"revision": commit, "trust_remote_code": config.trust_remote_code}
    theirs = AutoConfig.from_pretrained(config.source, **where)
    kind = _kind(config, theirs)
    if not found:
        check_parts(config.source, commit, "teacher", NEEDED)
    ours = kind == FGCLIP and not config.trust_remote_code
    model = load_transformers(
        _model_class(kind, config.trust_remote_code), config.source, "teacher", config.allow_tensors,
        elsewhere=FGCLIP_TENSORS if ours else (), **where,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(config.source, **where)
    long_texts = None
    if ours:
        long_texts = long_text_tower(model, _tensors(config.source, commit, FGCLIP_WEIGHTS))
    revision = found or getattr(theirs, "_commit_hash", None) or config.revision
    if revision is None:
        raise UnusableModel(f"teacher.source {config.source} does not tell its commit: set teacher.revision")
    mean, std = _pixel_statistics(config.source, kind, commit)
    return Loaded(model, tokenizer, kind, revision, mean, std, long_texts)


def _kind(config: TeacherConfig, theirs: Any) -> str:
    """The kind that the job names, or that the model's own config tells."""
    if config.kind != AUTO:
        return config.kind
    names = f"{getattr(theirs, 'auto_map', '')} {theirs.architectures}".lower().replace("_", "")
    kind: str = FGCLIP if theirs.model_type == CLIP and "fgclip" in names else theirs.model_type
    if kind not in KINDS:
        raise UnusableModel(
            f"teacher.source {config.source} is a '{kind}' model; use one of {', '.join(KINDS[1:])}"
        )
    return kind


def _model_class(kind: str, own_code: bool) -> Any:
    import transformers

    if kind == SIGLIP:
        return transformers.SiglipModel
    # FG-CLIP's own code registers itself as a language model; without it its weights are a CLIP and more
    return transformers.AutoModelForCausalLM if kind == FGCLIP and own_code else transformers.CLIPModel


def _tensors(source: str, revision: str | None, names: Sequence[str]) -> dict[str, Tensor]:
    """Single tensors of a model's safetensors file.

    Raises:
        KeyError: one that is not there.
    """
    from safetensors import safe_open
    from transformers.utils import cached_file

    with safe_open(cached_file(source, SAFETENSORS, revision=revision), "pt") as file:
        present = set(file.keys())
        if not present.issuperset(names):
            raise KeyError(f"{SAFETENSORS} lacks {sorted(set(names) - present)}; is it FG-CLIP?")
        return {name: file.get_tensor(name) for name in names}


def _pixel_statistics(
    source: str, kind: str, revision: str | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the preprocessor; the family's own where it does not say."""
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    found, _ = ImageProcessingMixin.get_image_processor_dict(source, revision=revision)
    usual = ([HALF] * 3, [HALF] * 3) if kind == SIGLIP else (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    return found.get("image_mean") or usual[0], found.get("image_std") or usual[1]
