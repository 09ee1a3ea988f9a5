"""How the demo's teacher is trained; a file of its own, so that job files load no model library."""

from __future__ import annotations

from dataclasses import dataclass

from plinth.counts import Count, CountOrZero


@dataclass
class TeacherTrainConfig:
    """The tiny CLIP and how it is trained. Any change trains it again."""

    image_size: int = 96
    """Side of the square colour image, in pixels; colour at another size is resized."""

    patch_size: Count = 16
    """Side of a patch, in pixels."""

    image_width: Count = 96
    """Width of the image tower (and of the student, which starts from its weights)."""

    image_layers: Count = 4
    """Blocks of the image tower."""

    image_heads: Count = 4
    """Attention heads of the image tower."""

    text_width: Count = 64
    """Width of the text tower."""

    text_layers: Count = 2
    """Blocks of the text tower."""

    text_heads: Count = 4
    """Attention heads of the text tower."""

    text_tokens: Count = 160
    """Longest text in words and punctuation marks; longer ones are cut."""

    embedding: Count = 128
    """Width of the joint space."""

    steps: Count = 250
    """Optimizer steps."""

    scenes_per_batch: Count = 32
    """Scenes of a step; every view of each takes part."""

    joined_captions: Count = 3
    """A scene is described by its own caption or by up to this many joined captions of its views."""

    scene_weight: float = 0.5
    """Factor of the scene-level loss beside the view-level one."""

    lr: float = 2e-3
    """Peak learning rate of AdamW; linear warm-up, then cosine to zero."""

    warmup_steps: CountOrZero = 20
    """Steps until the peak learning rate."""

    weight_decay: float = 0.05
    """Decoupled weight decay, on matrices only."""

    grad_clip: float = 1.0
    """Largest gradient norm."""

    grey: float = 0.0
    """Share of the views whose colour is replaced by brightness, so that shape has to serve as a cue."""

    jitter: float = 0.0
    """Each colour channel of a view is scaled by a factor drawn from 1 +- this."""

    seed: int = 0
    """Seed of weights, batches and augmentation."""

    threads: Count = 2
    """CPU threads, of which two are used at most. The result does not depend on them."""
