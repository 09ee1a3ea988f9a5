"""The encoder for transformers' Auto classes: importing this package registers it.

    import poma3d.auto                                     # the one line that transformers needs
    model = AutoModel.from_pretrained(folder)              # of `poma export --format transformers`
    processor = AutoProcessor.from_pretrained(folder)
    views = model(**processor(depth, intrinsics, poses))   # one scan as recorded
    views.features   # [1, V, E]

transformers finds classes of other packages in no other way than by `register` (it has no entry points), or
by running code from the model's folder (`trust_remote_code`), which this does without. Needs torch,
transformers, NumPy and Pillow; neither Ray nor DeepSpeed.

A language model that answers from scenes is loaded and asked alike:

    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    processor.answers(model.generate(**processor("how many chairs?", depth, intrinsics, poses)))

Models that are added here have a configuration with a `model_type` of their own and one line in `CLASSES`.
"""

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from poma3d.auto.config import Poma3dConfig
from poma3d.auto.folder import save
from poma3d.auto.language.config import Poma3dLlmConfig
from poma3d.auto.language.folder import join
from poma3d.auto.language.model import Poma3dLlm
from poma3d.auto.language.processor import Poma3dLlmProcessor
from poma3d.auto.model import Poma3dModel, Poma3dOutput
from poma3d.auto.processor import Poma3dProcessor

CLASSES: tuple[tuple[Any, Any, Any], ...] = (
    (Poma3dConfig, Poma3dModel, Poma3dProcessor),
    (Poma3dLlmConfig, Poma3dLlm, Poma3dLlmProcessor),
)
"""Configuration, model and processor of each kind of model."""

for _config, _model, _processor in CLASSES:
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)
AutoModelForCausalLM.register(Poma3dLlmConfig, Poma3dLlm, exist_ok=True)

__all__ = [
    "CLASSES", "Poma3dConfig", "Poma3dLlm", "Poma3dLlmConfig", "Poma3dLlmProcessor", "Poma3dModel",
    "Poma3dOutput", "Poma3dProcessor", "join", "save",
]  # fmt: skip
