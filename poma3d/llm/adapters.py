"""The adapters of a trained language model: folded into its weights, or alone as a folder of peft."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn

from poma3d.llm.config import AdapterConfig
from poma3d.llm.model import decoder_of

WEIGHTS = "adapter_model.safetensors"
OWN_NAME = ".default"
"""What peft puts into the names of weights while they are trained."""
OF_PEFT = "base_model.model."
"""What peft puts before the names of the model that it wraps."""
CAUSAL_TASK = "CAUSAL_LM"


def merge_adapters(llm: nn.Module) -> None:
    """Fold adapters into the weights that they adapt, and drop them; sums in float32, kept in the dtype of
    the weights.

    Raises:
        ValueError: weights that are not finite.
    """
    from peft.tuners.lora import LoraLayer

    for path, layer in [(n, m) for n, m in llm.named_modules() if isinstance(m, LoraLayer)]:
        base: Any = layer.get_base_layer()
        dtype = base.weight.dtype
        base.float()
        layer.merge(safe_merge=True)
        base.to(dtype)
        parent, _, name = path.rpartition(".")
        setattr(llm.get_submodule(parent), name, base)


def save_adapters(
    llm: nn.Module, config: AdapterConfig, base: str, revision: str | None, folder: Path
) -> None:
    """Write adapter_config.json and the weights, as `PeftModel.from_pretrained` loads them onto the model
    that was tuned, image tower included where it has one.

    Args:
        llm: with its adapters.
        base: what the config names as the model to be loaded.
        revision: of a hub id.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    decoder = decoder_of(llm)
    (prefix,) = (name for name, module in llm.named_modules() if module is decoder)
    layers = "|".join(re.escape(name) for name in config.targets)
    LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"{re.escape(prefix)}\.(?:.+\.)?(?:{layers})",  # not those of an image tower
        base_model_name_or_path=base,
        revision=revision,
        task_type=CAUSAL_TASK,
        inference_mode=True,
    ).save_pretrained(str(folder))
    weights = {
        OF_PEFT + name.replace(OWN_NAME, ""): parameter.detach().cpu().contiguous()
        for name, parameter in llm.named_parameters()
        if "lora_" in name
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
