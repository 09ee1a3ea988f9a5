"""Published CLIP, SigLIP and FG-CLIP weights, translated.

`image_tower` turns a transformers model's image half into the weights of our own `VisionTransformer`.
`long_text_tower` gives FG-CLIP's second text mode without the code that comes with it (which no longer
loads under current releases of transformers): the same layers with 248 positions, of which the first 20
and the rest were trained apart, and another projection.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poma3d.network.vit import ImageTower, VitShape

LONG_PROJECTION = "text_filip_projection.weight"
LONG_POSITIONS_FIRST = "text_model.embeddings.position_embedding_ori.weight"
LONG_POSITIONS_REST = "text_model.embeddings.position_embedding_res.weight"
FGCLIP_WEIGHTS = (LONG_PROJECTION, LONG_POSITIONS_FIRST, LONG_POSITIONS_REST)
FGCLIP_TENSORS = (*FGCLIP_WEIGHTS, "logit_scale_*")
"""What FG-CLIP has besides a CLIP: those, and two temperatures of its training."""
FIRST_POSITIONS = 20


def image_tower(model: torch.nn.Module) -> ImageTower:
    """The image tower of a transformers `CLIPModel`, `SiglipModel` or FG-CLIP model.

    Raises:
        ValueError: another kind of model, or one without the joint space's projection.
    """
    state = model.state_dict()
    pooling = "class" if "visual_projection.weight" in state else "attention"
    if pooling == "attention" and "vision_model.head.probe" not in state:
        raise ValueError(
            f"{type(model).__name__} is not a CLIP or SigLIP model: no visual projection, no head"
        )
    return tower_from_state(state, model.config)


def tower_from_state(state: Mapping[str, Tensor], config: Any) -> ImageTower:
    """The same from the tensors by transformers' names, and a config as for `tower_shape`."""
    shape = tower_shape(config, "class" if "visual_projection.weight" in state else "attention")
    ours = _translate(state, shape)
    weights = {name: tensor.detach().float().cpu().clone() for name, tensor in ours.items()}
    return ImageTower(shape, weights, float(state["logit_scale"]))


def tower_shape(config: Any, pooling: str) -> VitShape:
    """The image tower's shape from a transformers config, without any weights.

    Args:
        config: of a `CLIPModel`, `SiglipModel` or FG-CLIP model.
        pooling: "class" for CLIP and FG-CLIP, "attention" for SigLIP.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    return VitShape(
        grid=(side, side),
        patch=vision.patch_size,
        channels=vision.num_channels,
        width=vision.hidden_size,
        layers=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        activation=vision.hidden_act,
        norm_eps=vision.layer_norm_eps,
        pooling=pooling,
        joint=config.projection_dim if pooling == "class" else vision.hidden_size,
    )


def long_text_tower(model: torch.nn.Module, extra: Mapping[str, Tensor]) -> torch.nn.Module:
    """FG-CLIP's text tower for long captions, sharing all layers with `model`.

    Args:
        model: the `CLIPModel` of its ordinary weights.
        extra: the tensors `FGCLIP_WEIGHTS`.

    Returns:
        A transformers `CLIPTextModelWithProjection`.
    """
    from transformers import CLIPTextModelWithProjection

    whole: Any = model
    config = copy.deepcopy(whole.config.text_config)
    first, rest = extra[LONG_POSITIONS_FIRST], extra[LONG_POSITIONS_REST]
    config.max_position_embeddings, config.projection_dim = len(rest), whole.config.projection_dim
    tower = CLIPTextModelWithProjection(config)
    state = {name: p for name, p in model.state_dict().items() if name.startswith("text_model.")}
    positions = torch.cat([first[:FIRST_POSITIONS], rest[FIRST_POSITIONS:]])
    state["text_model.embeddings.position_embedding.weight"] = positions
    state["text_projection.weight"] = extra[LONG_PROJECTION]
    tower.load_state_dict(state, assign=True)
    return tower


def _translate(state: Mapping[str, Tensor], shape: VitShape) -> dict[str, Tensor]:
    """From the names of transformers to those of `VisionTransformer`."""
    v = "vision_model."
    position = state[f"{v}embeddings.position_embedding.weight"]
    ours = {"patch_embed.weight": state[f"{v}embeddings.patch_embedding.weight"]}
    if shape.pooling == "class":
        ours["embed.class_token"], ours["embed.position"] = _class_token(state, position)
        _copy(state, ours, f"{v}pre_layrnorm", "embed.norm")
        ours["head.weight"] = state["visual_projection.weight"]
    else:
        ours["patch_embed.bias"] = state[f"{v}embeddings.patch_embedding.bias"]
        ours["embed.position"] = position
        _attention_pool(state, ours)
    for i in range(shape.layers):
        theirs, here = f"{v}encoder.layers.{i}.", f"blocks.{i}."
        _copy(state, ours, f"{theirs}layer_norm1", f"{here}norm1")
        _copy(state, ours, f"{theirs}layer_norm2", f"{here}norm2")
        for letter in ("q", "k", "v", "out"):
            _copy(state, ours, f"{theirs}self_attn.{letter}_proj", f"{here}attn.{letter}")
        for layer in ("fc1", "fc2"):
            _copy(state, ours, f"{theirs}mlp.{layer}", f"{here}mlp.{layer}")
    _copy(state, ours, f"{v}post_layernorm", "norm")
    return ours


def _copy(state: Mapping[str, Tensor], ours: dict[str, Tensor], theirs: str, here: str) -> None:
    for part in ("weight", "bias"):
        ours[f"{here}.{part}"] = state[f"{theirs}.{part}"]


def _class_token(state: Mapping[str, Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP gives the class token a position of its own, always the same: it is added here, once."""
    return state["vision_model.embeddings.class_embedding"] + position[0], position[1:]


def _attention_pool(state: Mapping[str, Tensor], ours: dict[str, Tensor]) -> None:
    head = "vision_model.head."
    ours["head.probe"] = state[f"{head}probe"][0, 0]
    for part in ("weight", "bias"):
        stacked = state[f"{head}attention.in_proj_{part}"].chunk(3)
        ours.update({f"head.{letter}.{part}": tensor for letter, tensor in zip("qkv", stacked, strict=True)})
    _copy(state, ours, f"{head}attention.out_proj", "head.out")
    _copy(state, ours, f"{head}layernorm", "head.norm")
    for layer in ("fc1", "fc2"):
        _copy(state, ours, f"{head}mlp.{layer}", f"head.mlp.{layer}")
