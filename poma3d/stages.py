"""The two pretraining stages: models with their losses, which know nothing of a launcher.

Both have the shape of the platform's `Stage`: `forward` encodes a micro-batch, `contrast` gives the
losses over the gathered features of the global batch.

    warm-up   L_view                                  single views with captions (any V works)
    main      L_view + L_scene + lambda * L_pjepa     scenes of V views

Passes of a main step, as in the paper's objectives: the context encoder sees all tokens once (the
features that are contrasted, and retrieved by later, come from whole views) and the context tokens
once (what the predictor starts from); the patch embedding is shared by the two. The target encoder
sees all tokens once, without gradient. The first of two passes (`features_only`) is the first of the
three alone.

The target encoder is a frozen twin: `target.<name>` beside `encoder.<name>`. It starts as a copy; whoever
trains the stage moves it (`ema_pairs`, `ema_momentum`) and, after loading other weights into the
encoder (the warm-up's, whose names are the same), calls `copy_to_target`.

Batch: the tensor columns of `poma3d.sample` [n, ...] (depth as uint16 or its bits as int16), and

    sample_valid   bool   [n]   False: a repeat that fills a batch; it counts in no loss
    sample_key     int64  [n]   hash of the sample's id, the key of its randomness
    epoch          int64  [n]   the same for all of a micro-batch

`prepare` adds what is drawn for the samples (masks, captions, rotations), on the host before the batch goes
to a device: afterwards nothing waits for the device.

Legend, also of the suffixes of tensors: n samples of a micro-batch, N of the global batch, V views of a
sample, m = n * V views, R rows (N * V views of a loss, tokens of a log), S captions of a scene, H W pixels,
P patches, K context patches, M target blocks of T patches, L = V * M * T targets of a sample, D width,
E joint space.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from poma3d import ema, losses, pictures
from poma3d.inputs import (
    ROTATION,
    SCENE_CAPTIONS,
    VIEW_CAPTIONS,
    Batch,
    Samples,
    choose_captions,
    fake_batch,
    point_maps,
    read_samples,
    turn,
    uniform,
    valid_views,
)
from poma3d.masking import Masks, draw_masks
from poma3d.network.config import CHAMFER, MEAN, LossConfig, ModelConfig
from poma3d.network.encoder import PointMapEncoder, build_encoder, compile_encoder
from poma3d.network.model import Temperature, patch_grid, validate
from poma3d.network.outputs import Contrast, Encoded, ParamGroup, jepa_logs
from poma3d.network.predictor import Predictor
from poma3d.network.vit import ImageTower, VitOutput, take
from poma3d.sample import SampleShape

CONTEXT_MASK, TARGET_MASK = "drawn/context-mask", "drawn/target-mask"
"""Keys of a prepared batch: `poma3d.masking.Masks`."""
VIEW_EMBEDDINGS = ("image_embedding", "caption_embedding", "caption_count")
SCENE_EMBEDDINGS = ("scene_caption_embedding", "scene_caption_count")


class WarmupStage(nn.Module):
    """L_view (and, when asked for, the dense distance to the teacher's patch tokens)."""

    log_details = False
    """Set by the loop for the steps whose costlier logs it shows."""

    def __init__(
        self, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
    ) -> None:
        super().__init__()
        self.model_config, self.loss_config, self.shape, self.seed = model, loss, shape, seed
        self.grid = patch_grid(shape, tower)
        self.encoder = build_encoder(model.encoder, tower, self.grid)
        self.temperature = Temperature(tower.logit_scale, model.train_logit_scale)

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """Encode a micro-batch.

        `features` are, per sample: `view` s * c [n, V, E] with gradient; `image`, `text` [n, V, E] and
        their masks `image_valid`, `text_valid` [n, V]; `key` [n].

        Raises:
            ValueError: a column that is missing or has another shape than the stage was built for.
        """
        batch = self.prepare(batch)
        output = self.encoder(self._views(batch))
        encoded = Encoded(features=self._view_features(batch, output.pooled))
        if self.loss_config.dense:
            self._add_dense(encoded, batch, output, features_only)
        return encoded

    def prepare(self, batch: Batch) -> Batch:
        """The batch with what is drawn for its samples; itself if it has that. Call it before the batch goes
        to a device.

        Raises:
            ValueError: as `forward`.
        """
        if VIEW_CAPTIONS in batch:
            return batch
        self._check(batch)
        samples, degrees = read_samples(batch), self.model_config.augment.rotate_z_degrees
        drawn = {VIEW_CAPTIONS: uniform((self.shape.views,), "view-captions", self.seed, samples)}
        if degrees:
            drawn[ROTATION] = turn(samples, degrees, self.seed)
        return {**batch, **drawn}

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """L_view over all valid views of the global batch."""
        view_RE = features["view"].flatten(0, 1)
        samples, views = features["image_valid"].shape
        index_NV = torch.arange(views, device=view_RE.device).expand(samples, views)
        key_NV = features["key"][:, None].expand(samples, views)
        rows_R2 = torch.stack([key_NV, index_NV], dim=-1).flatten(0, 1)
        terms = {}
        for name in ("image", "text"):
            teacher_RE = losses.unit(features[name]).flatten(0, 1)
            valid_R = features[f"{name}_valid"].flatten()
            terms[f"view_{name}"] = losses.masked_nce(view_RE, teacher_RE, valid_R, rows_R2)
        total = self.loss_config.view * (terms["view_image"] + terms["view_text"])
        return Contrast(total, {name: term.detach() for name, term in terms.items()})

    def param_groups(self, weight_decay: float) -> list[ParamGroup]:
        """Trainable parameters; biases, norms and other vectors without weight decay."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[ParamGroup] = []
        for name, decay, params in (
            ("decay", weight_decay, [p for p in trained if p.ndim > 1]),
            ("no_decay", 0.0, [p for p in trained if p.ndim <= 1]),
        ):
            if params:
                groups.append(ParamGroup(name=name, params=params, weight_decay=decay, lr_scale=1.0))
        return groups

    def ema_pairs(self) -> Mapping[str, str]:
        """No target encoder in this stage."""
        return {}

    def ema_momentum(self, progress: float) -> float:
        """Momentum of the target encoder at `progress` in [0, 1]."""
        return ema.momentum(self.model_config.ema, progress)

    def columns(self) -> list[str]:
        """Columns that `forward` reads."""
        dense = ["image_tokens"] if self.loss_config.dense else []
        return [*self.shape.geometry, "view_valid", *VIEW_EMBEDDINGS, *dense]

    @staticmethod
    def reported(loss: LossConfig) -> set[str]:
        """Names of the loss terms that a stage with these weights reports."""
        return {"view_image", "view_text"} | ({"dense"} if loss.dense else set())

    @property
    def trained_encoder(self) -> PointMapEncoder:
        """The encoder that is evaluated and exported."""
        return self.encoder

    def fake_batch(self, n: int, seed: int = 0) -> Batch:
        """A random batch of the right shapes and dtypes, on the CPU."""
        return fake_batch(self.shape, self.columns(), n, seed)

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """The views of the first sample, coloured by x, y, z."""
        points = self._points(self.prepare(batch))
        return {"point_maps": pictures.sheet([pictures.colour_points(points[0])])}

    @staticmethod
    def _points(batch: Batch) -> Tensor:
        return point_maps(batch, batch.get(ROTATION))

    def _views(self, batch: Batch) -> Tensor:
        """[m, 3, H, W], without a copy of the point maps."""
        return self._points(batch).flatten(0, 1).permute(0, 3, 1, 2)

    def _view_features(self, batch: Batch, pooled_mE: Tensor) -> dict[str, Tensor]:
        valid_nV, counts_nV = valid_views(batch), batch["caption_count"]
        text_nVE = choose_captions(batch["caption_embedding"], counts_nV, batch[VIEW_CAPTIONS])
        return {
            "view": self.temperature(losses.unit(pooled_mE)).unflatten(0, valid_nV.shape),
            "image": batch["image_embedding"],
            "text": text_nVE,
            "image_valid": valid_nV,
            "text_valid": valid_nV & (counts_nV > 0),
            "key": batch["sample_key"],
        }

    def _add_dense(self, encoded: Encoded, batch: Batch, output: VitOutput, features_only: bool) -> None:
        valid_nV = valid_views(batch)
        encoded.counts["dense"] = valid_nV.any(dim=1).sum()
        encoded.weights["dense"] = self.loss_config.dense
        if not features_only:
            student_nVPD = output.tokens.unflatten(0, valid_nV.shape)
            encoded.sums["dense"] = losses.dense(student_nVPD, batch["image_tokens"], valid_nV).sum()

    def _check(self, batch: Batch) -> None:
        missing = [c for c in (*self.columns(), "sample_valid", "sample_key", "epoch") if c not in batch]
        if missing:
            raise ValueError(
                f"the batch lacks {', '.join(missing)}; embed the samples with the teacher before training"
            )
        expected = (self.shape.views, self.shape.height, self.shape.width)
        name = self.shape.geometry[0]
        found = tuple(batch[name].shape[1:4])
        if found != expected:
            raise ValueError(f"{name} has shape {found} per sample, the stage was built for {expected}")


class MainStage(WarmupStage):
    """L_view + L_scene + lambda * L_pjepa."""

    def __init__(
        self, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
    ) -> None:
        super().__init__(model, loss, shape, tower, seed)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self.predictor: Predictor | None = None
        if loss.jepa:
            checkpointing = model.encoder.gradient_checkpointing
            self.predictor = Predictor(model.predictor, tower.shape.width, self.grid, checkpointing)

    def train(self, mode: bool = True) -> MainStage:
        """The target encoder stays in evaluation mode: its targets have no dropout."""
        super().train(mode)
        self.target.eval()
        return self

    def forward(self, batch: Batch, features_only: bool = False) -> Encoded:
        """Encode a micro-batch.

        Besides the warm-up's `features`: `scene` s * g [n, E] with gradient; `scene_image`,
        `scene_text` [n, E] and their masks `scene_image_valid`, `scene_text_valid` [n].
        `sums["jepa"]` is over valid scenes.

        Raises:
            ValueError: as in the warm-up.
        """
        batch = self.prepare(batch)
        views_m3HW = self._views(batch)
        predicts = self.predictor is not None and not features_only
        masks = Masks(batch[CONTEXT_MASK], batch[TARGET_MASK]) if predicts else None
        output = self.encoder(views_m3HW, None if masks is None else masks.context.flatten(0, 1))
        encoded = Encoded(features=self._view_features(batch, output.pooled))
        encoded.features.update(self._scene_features(batch, encoded.features))
        if self.loss_config.dense:
            self._add_dense(encoded, batch, output, features_only)
        if self.predictor is not None:
            encoded.counts["jepa"] = valid_views(batch).any(dim=1).sum()
            encoded.weights["jepa"] = self.loss_config.jepa
        if masks is not None and output.kept is not None:
            self._add_jepa(encoded, valid_views(batch), views_m3HW, output.kept, masks)
        return encoded

    def prepare(self, batch: Batch) -> Batch:
        """Besides the warm-up's: masks, and which caption of its scene each sample gets.

        Raises:
            ValueError: as `forward`.
        """
        if VIEW_CAPTIONS in batch:
            return batch
        prepared, samples = super().prepare(batch), read_samples(batch)
        prepared[SCENE_CAPTIONS] = uniform((), "scene-captions", self.seed, samples)
        if self.predictor is not None:
            masks = self._masks(samples)
            prepared |= {CONTEXT_MASK: masks.context, TARGET_MASK: masks.targets}
        return prepared

    def contrast(self, features: dict[str, Tensor]) -> Contrast:
        """L_view and L_scene over the global batch."""
        result = super().contrast(features)
        for name in ("image", "text"):
            teacher_NE, valid_N = losses.unit(features[f"scene_{name}"]), features[f"scene_{name}_valid"]
            term = losses.masked_nce(features["scene"], teacher_NE, valid_N, features["key"])
            result.total = result.total + self.loss_config.scene * term
            result.terms[f"scene_{name}"] = term.detach()
        return result

    def ema_pairs(self) -> Mapping[str, str]:
        """Trained parameters of the encoder -> their frozen copies (with LoRA: adapters, patch embedding)."""
        trained = (name for name, p in self.encoder.named_parameters() if p.requires_grad)
        return {f"encoder.{name}": f"target.{name}" for name in trained}

    @torch.no_grad()
    def copy_to_target(self) -> None:
        """Make the target encoder a copy of the context encoder, as at the start of the stage."""
        self.target.load_state_dict(self.encoder.state_dict())

    def columns(self) -> list[str]:
        """Columns that `forward` reads."""
        return [*super().columns(), *SCENE_EMBEDDINGS]

    @staticmethod
    def reported(loss: LossConfig) -> set[str]:
        """Names of the loss terms that a stage with these weights reports."""
        scene = {"scene_image", "scene_text"} | ({"jepa"} if loss.jepa else set())
        return WarmupStage.reported(loss) | scene

    @property
    def trained_encoder(self) -> PointMapEncoder:
        """The target encoder: what downstream tasks use."""
        return self.target

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """The views of the first sample: whole, what the context encoder sees, what it must predict."""
        coloured = pictures.colour_points(self._points(self.prepare(batch))[0])
        masks = self._masks(read_samples(batch))
        context = pictures.keep_patches(coloured, masks.context[0].cpu(), self.grid)
        targets = pictures.keep_patches(coloured, masks.targets[0].flatten(1).cpu(), self.grid)
        return {"masks": pictures.sheet([coloured, context, targets])}

    def _masks(self, samples: Samples) -> Masks:
        config, views = self.model_config.masks, self.shape.views
        return draw_masks(config, self.grid, views, self.seed, samples.epochs, samples.keys)

    def _scene_features(self, batch: Batch, view: dict[str, Tensor]) -> dict[str, Tensor]:
        valid_nV, counts_n = valid_views(batch), batch["scene_caption_count"]
        valid_nV1 = valid_nV[..., None]
        text_nE = choose_captions(batch["scene_caption_embedding"], counts_n, batch[SCENE_CAPTIONS])
        # Every row of `view` has the same length s, so the mean's direction is that of the unit rows.
        mean_nE = losses.masked_mean(view["view"], valid_nV1, dim=1)
        image_nE = losses.masked_mean(losses.unit(view["image"]), valid_nV1, dim=1)
        valid_n = valid_nV.any(dim=1)
        return {
            "scene": self.temperature(losses.unit(mean_nE)),
            "scene_image": losses.unit(image_nE),
            "scene_text": text_nE,
            "scene_image_valid": valid_n,
            "scene_text_valid": valid_n & (counts_n > 0),
        }

    def _add_jepa(
        self, encoded: Encoded, valid_nV: Tensor, views_m3HW: Tensor, kept_mKD: Tensor, masks: Masks
    ) -> None:
        assert self.predictor is not None
        context_mK, targets_mMT = masks.context.flatten(0, 1), masks.targets.flatten(0, 1)
        with torch.no_grad():
            tokens_mPD = losses.layer_norm(self.target(views_m3HW).tokens)
            wanted = take(tokens_mPD, targets_mMT.flatten(1))
        # CLIP leaves its patch tokens un-normalised: the predictor starts from the same space it ends in.
        start_mKD = losses.layer_norm(kept_mKD).to(kept_mKD.dtype)
        predicted = self.predictor(start_mKD, context_mK, targets_mMT).flatten(1, 2)
        n = len(valid_nV)
        z_hat_nLD, z_nLD = (x.reshape(n, -1, x.shape[-1]) for x in (predicted.float(), wanted))
        valid_nL = valid_nV.repeat_interleave(targets_mMT[0].numel(), dim=1)
        if self.loss_config.jepa_distance == CHAMFER:
            distance_n = losses.chamfer(z_hat_nLD, z_nLD, valid_nL, valid_nL)
        else:
            distance_n = losses.positional(z_hat_nLD, z_nLD, valid_nL)
        if self.loss_config.jepa_reduction == MEAN:
            distance_n = distance_n / z_nLD.shape[-1]
        encoded.sums["jepa"] = distance_n.sum()
        if self.log_details:
            encoded.logs.update(jepa_logs(tokens_mPD, z_hat_nLD.detach(), z_nLD, valid_nL))


def build_stage(
    kind: str, model: ModelConfig, loss: LossConfig, shape: SampleShape, tower: ImageTower, seed: int
) -> WarmupStage | MainStage:
    """A stage with new weights that depend on `seed` and `tower` alone.

    Args:
        kind: "warmup" or "main".
        model, loss: configs.
        shape: of the samples.
        tower: the teacher's image tower (`Teacher.image_tower()`).
        seed: of the job: first weights, masks, captions, augmentation.

    Raises:
        ValueError: a contradiction between configs, samples and teacher.
    """
    if kind not in STAGES:
        raise ValueError(f"stage '{kind}' is not one of {', '.join(STAGES)}")
    validate(model, loss, shape, tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stage = STAGES[kind](model, loss, shape, tower, seed)
    for part in stage.children():
        if isinstance(part, PointMapEncoder):
            compile_encoder(part, model.encoder.compile)
    return stage


STAGES: dict[str, type[WarmupStage]] = {"warmup": WarmupStage, "main": MainStage}
