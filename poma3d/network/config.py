"""The settings of the model and of its losses."""

from __future__ import annotations

from dataclasses import dataclass, field

from poma3d.counts import Count

FULL, LORA = "full", "lora"


AS_WRITTEN, INDUCTOR, AOT_EAGER = "none", "inductor", "aot_eager"


LORA_TARGETS = ("q", "k", "v", "out", "fc1", "fc2")


@dataclass
class TuningConfig:
    """Which weights of the encoder are trained."""

    mode: str = LORA
    """lora: low-rank adapters and the patch embedding; full: everything."""
    rank: Count = 32
    """Rank of the adapters."""
    alpha: float = 64.0
    """Adapters are scaled by alpha / rank."""
    dropout: float = 0.05
    """Dropout on the adapters' input."""
    targets: list[str] = field(default_factory=lambda: ["q", "k", "v", "fc1", "fc2"])
    """Linear layers of a block that get an adapter: of q, k, v, out, fc1, fc2."""


@dataclass
class EncoderConfig:
    """Context and target encoder; its size is the teacher's image tower's."""

    tuning: TuningConfig = field(default_factory=TuningConfig)
    """Which weights are trained."""
    input_gain: float = 1.0
    """Patch mean + gain x the residual before the patch embedding. 1: as in the paper."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: str = AS_WRITTEN
    """Backend of torch.compile for both encoders. none: as written; inductor: compiled kernels, with other
    last bits; aot_eager: traced only, to find what does not compile. Not with zero.stage 3."""


@dataclass
class PredictorConfig:
    """Size of the predictor."""

    layers: int = 6
    """Transformer blocks."""
    width: Count = 384
    """Token width; a multiple of 4 and of `heads`."""
    heads: Count = 12
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP, as a multiple of `width`."""


@dataclass
class MaskConfig:
    """Masks of the joint-embedding prediction, as shares of the patch grid."""

    target_blocks: int = 4
    """Target blocks of a view."""
    target_scale_min: float = 0.15
    """Smallest area of a target block, as a share of the grid."""
    target_scale_max: float = 0.2
    """Largest area of a target block."""
    target_aspect_min: float = 0.75
    """Smallest height / width of a target block."""
    target_aspect_max: float = 1.5
    """Largest height / width of a target block."""
    context_scale_min: float = 0.85
    """Smallest area of the context block, before the targets are taken out; its aspect is the grid's."""
    context_scale_max: float = 1.0
    """Largest area of the context block."""
    min_context: int = 10
    """Fewest context patches of a view; views that keep less are drawn again."""
    keep_quantile: float = 0.05
    """Contexts are trimmed to this quantile of their counts; the views below it are drawn again."""


@dataclass
class EmaConfig:
    """Momentum of the target encoder, linear over the stage."""

    momentum_start: float = 0.996
    """At the first step."""
    momentum_end: float = 1.0
    """At the last step."""


CHAMFER, SMOOTH_L1 = "chamfer", "smooth_l1"


MEAN, SUM = "mean", "sum"


@dataclass
class AugmentConfig:
    """Changes of the input, drawn per (seed, epoch, sample). All off in the paper's configuration."""

    rotate_z_degrees: float = 0.0
    """The scene is turned about the vertical by an angle drawn from [-this, this]. 180: any heading."""


@dataclass
class ModelConfig:
    """Encoder, predictor, target encoder and what they are shown."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Context and target encoder."""
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    """From context tokens to target tokens."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """What the context encoder does not see in the joint-embedding prediction."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Momentum of the target encoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Changes of the input."""
    train_logit_scale: bool = False
    """Train the temperature factor (clamped at 100) instead of keeping the teacher's."""


@dataclass
class LossConfig:
    """Weights of the loss terms. The defaults are the paper's objective."""

    view: float = 1.0
    """Weight of L_view: views against the teacher's image and caption embeddings."""
    scene: float = 1.0
    """Weight of L_scene (main stage): mean view features against mean image and scene captions."""
    jepa: float = 1.0
    """lambda, weight of L_pjepa (main stage). 0 leaves the predictor out."""
    jepa_distance: str = CHAMFER
    """chamfer: order-free over all views of a scene; smooth_l1: position by position (plain I-JEPA)."""
    jepa_reduction: str = MEAN
    """Over the feature channels: mean keeps L_pjepa near 1 at any width; sum is the squared norm itself."""
    dense: float = 0.0
    """Weight of the distance to the teacher's patch tokens (column image_tokens). Not in the paper."""
