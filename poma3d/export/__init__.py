"""The trained encoder as a folder that loads with one call, without Ray, DeepSpeed, peft or the platform.

    encoder = poma3d.export.load("folder")
    views = encoder.from_frames(depth, K, poses)                    # frames of one scan, as recorded
    views = encoder.from_depth(depth, depth_scale, intrinsics, pose)     # ready: z-up, on the encoder's grid
    views = encoder(point_maps)                                     # the same as points
    views.features   # [B, V, E] unit vectors, to be compared with the teacher's text features
    views.tokens     # [B, V, P, D] patch tokens
    encoder.rank(views, "a desk by the window").views               # best views first

The folder holds `model.safetensors` (adapters folded into the weights they adapt) and `config.json`.
"""

from poma3d.export.encoder import Provenance, SceneEncoder, SceneFeatures, weights_digest
from poma3d.export.folder import CONFIG, WEIGHTS, load, save
from poma3d.export.search import Ranking

__all__ = [
    "CONFIG", "WEIGHTS", "Provenance", "Ranking", "SceneEncoder", "SceneFeatures", "load", "save",
    "weights_digest",
]  # fmt: skip
