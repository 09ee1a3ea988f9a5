"""The frozen teacher: a CLIP-family model that embeds colour images and captions in one space.

Its image tower runs as our own `VisionTransformer`, from the published weights, because it has to
give patch tokens too and because the context encoder starts from the same weights; text runs as
transformers has it. Weights are read from safetensors alone.

Views are resized whole to the tower's square, never cropped: patch (r, c) of the image and of the point map
must show the same pixels.

Legend: n images or texts, h w pixels, E joint space, P patches, D width of the image tower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poma3d.losses import layer_norm
from poma3d.network.vit import ImageTower
from poma3d.pretrained.config import AUTO, CLIP, FGCLIP, SIGLIP, TeacherConfig
from poma3d.pretrained.towers import FGCLIP_WEIGHTS, image_tower, long_text_tower

KINDS = (AUTO, CLIP, SIGLIP, FGCLIP)
SHORT_TOKENS, LONG_TOKENS = 77, 248
"""Text lengths of FG-CLIP's own code."""
HALF = 0.5
"""Mean and standard deviation of SigLIP's pixels."""
REVISION_LENGTH = 16
SAFETENSORS = "model.safetensors"


def validate(cfg: TeacherConfig) -> None:
    """Refuse a teacher that cannot be loaded or must not be.

    Raises:
        ValueError: naming the field and what to do.
    """
    if not cfg.source:
        raise ValueError("teacher.source is empty: give a folder with safetensors weights or a hub id")
    if cfg.kind not in KINDS:
        raise ValueError(f"teacher.kind is '{cfg.kind}'; use one of {', '.join(KINDS)}")
    if cfg.trust_remote_code and not cfg.revision:
        raise ValueError(
            "teacher.trust_remote_code runs code that comes with the weights: pin it with teacher.revision "
            "(the commit that you have read)"
        )
    if cfg.batch_size < 1:
        raise ValueError(f"teacher.batch_size is {cfg.batch_size}; it must be at least 1")


class Teacher:
    """A loaded teacher. `load_teacher` makes one; tests may wrap a model of their own."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        kind: str,
        name: str,
        revision: str,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int = 64,
        long_texts: torch.nn.Module | None = None,
    ) -> None:
        self.name = name
        self.revision = revision
        self.kind = kind
        self._model = model.eval().requires_grad_(False)
        self._long_texts = long_texts.eval().requires_grad_(False) if long_texts is not None else None
        self._tokenizer = tokenizer
        self._tower = image_tower(model)
        self._vision = self._tower.build().eval().requires_grad_(False).to(self.device)
        self._mean = torch.tensor(mean, device=self.device)[:, None, None]
        self._std = torch.tensor(std, device=self.device)[:, None, None]
        self._batch_size = batch_size

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self._model.parameters()).device

    @property
    def embedding(self) -> int:
        """E."""
        return self._tower.shape.joint

    @property
    def token_width(self) -> int:
        """D."""
        return self._tower.shape.width

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

    def _text_features(self, texts: list[str], long: bool) -> np.ndarray:
        own_code = self.kind == FGCLIP and self._long_texts is None
        model: Any = self._long_texts if long and not own_code else self._model
        if own_code:
            limit = LONG_TOKENS if long else SHORT_TOKENS
        else:
            limit = model.config.get_text_config().max_position_embeddings
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


def load_teacher(cfg: TeacherConfig, device: str | torch.device = "cpu") -> Teacher:
    """Load model, tokenizer and pixel statistics.

    Raises:
        ValueError: no such model, no safetensors weights, a kind that is not supported, remote code
            without permission, or a folder whose weights are not those of `revision`.
    """
    validate(cfg)
    folder = Path(cfg.source)
    local = folder.is_dir()
    found = weight_hash(folder) if local else None
    if local and cfg.revision and cfg.revision != found:
        raise ValueError(
            f"teacher.source {cfg.source} has weights {found}, the job expects teacher.revision "
            f"{cfg.revision}: point it at those weights, or embed the samples again"
        )
    commit = None if local else cfg.revision
    try:
        config, kind, model, tokenizer, long_texts = _load_parts(cfg, commit)
    except (OSError, ImportError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(f"teacher.source {cfg.source} cannot be loaded: {_first_line(error)}") from error
    revision = found or getattr(config, "_commit_hash", None) or cfg.revision
    if revision is None:
        raise ValueError(f"teacher.source {cfg.source} does not tell its commit: set teacher.revision")
    mean, std = _pixel_statistics(cfg, kind, commit)
    name = folder.name if local else cfg.source
    if long_texts is not None:
        long_texts.to(device)
    return Teacher(model.to(device), tokenizer, kind, name, revision, mean, std, cfg.batch_size, long_texts)


def _load_parts(cfg: TeacherConfig, commit: str | None) -> tuple[Any, str, Any, Any, torch.nn.Module | None]:
    """Config, kind, model, tokenizer and FG-CLIP's long text tower."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(cfg.source, revision=commit, trust_remote_code=cfg.trust_remote_code)
    kind = _kind(cfg, config)
    model = _model_class(kind, cfg.trust_remote_code).from_pretrained(
        cfg.source, revision=commit, trust_remote_code=cfg.trust_remote_code, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(
        cfg.source, revision=commit, trust_remote_code=cfg.trust_remote_code
    )
    long_texts = None
    if kind == FGCLIP and not cfg.trust_remote_code:
        long_texts = long_text_tower(model, _tensors(cfg.source, commit, FGCLIP_WEIGHTS))
    return config, kind, model, tokenizer, long_texts


def weight_hash(folder: Path) -> str:
    """Hash of a folder's config.json, safetensors weights and code: the revision of a local teacher.

    Raises:
        ValueError: no safetensors weights in it.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ValueError(
            f"{folder} has no *.safetensors: pickled weights are not loaded; convert them with "
            "save_pretrained(..., safe_serialization=True)"
        )
    digest = hashlib.sha256()
    for path in [folder / "config.json", *weights, *sorted(folder.glob("*.py"))]:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:REVISION_LENGTH]


def _kind(cfg: TeacherConfig, config: Any) -> str:
    if cfg.kind != AUTO:
        return cfg.kind
    said = f"{getattr(config, 'auto_map', '')} {config.architectures}".lower().replace("_", "")
    kind = FGCLIP if config.model_type == CLIP and "fgclip" in said else config.model_type
    if kind not in KINDS:
        raise ValueError(
            f"teacher.source {cfg.source} is a '{kind}' model; use one of {', '.join(KINDS[1:])}"
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
    cfg: TeacherConfig, kind: str, revision: str | None
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation from preprocessor_config.json; the family's own where it is missing."""
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(cfg.source, revision=revision)
    except OSError:
        found = {}
    usual = ([HALF] * 3, [HALF] * 3) if kind == SIGLIP else (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    return found.get("image_mean") or usual[0], found.get("image_std") or usual[1]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
