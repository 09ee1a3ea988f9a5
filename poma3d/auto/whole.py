"""A model of transformers that is loaded whole, or not at all."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from poma3d.network.vit import AttentionPool, Embed, PatchEmbed
from poma3d.pretrained.loading import Mismatch, refuse, reported

NEW_WEIGHTS_STD = 0.02
"""Of the normal distribution of new weights, as in the image towers that the encoder starts from."""


class WholeModel(PreTrainedModel):
    """As in transformers, which would draw weights that are missing at random, with a warning."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers.

        Raises:
            ValueError: no such folder, damaged weights, or weights that are not those of config.json; says
                which.
        """
        source, with_info = str(pretrained_model_name_or_path), kwargs.pop("output_loading_info", False)
        kwargs = {"ignore_mismatched_sizes": True, **kwargs, "output_loading_info": True}
        with reported(source, ""):
            model, info = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        reshaped = {name: (tuple(found), tuple(own)) for name, found, own in info["mismatched_keys"]}
        found = Mismatch(list(info["missing_keys"]), list(info["unexpected_keys"]), reshaped)
        refuse(found, (), source, "", cls.__name__)
        # transformers leaves weights in the file's memory map, where matrix products may round otherwise.
        for parameter in model.parameters():
            if parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
        return (model, info) if with_info else model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PatchEmbed | Embed | AttentionPool):
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias":
                    init.zeros_(parameter)
                else:
                    init.normal_(parameter, std=NEW_WEIGHTS_STD)
