"""The encoder for transformers' Auto classes: importing this package registers it.

    import poma3d.auto                                     # the one line that transformers needs
    model = AutoModel.from_pretrained(folder)              # of `poma export --format transformers`
    processor = AutoProcessor.from_pretrained(folder)
    views = model(**processor(depth, intrinsics, poses))   # one scan as recorded
    views.features   # [1, V, E]

transformers finds classes of other packages in no other way than by `register` (it has no entry points), or
by running code from the model's folder (`trust_remote_code`), which this does without. Needs torch,
transformers, NumPy and Pillow; neither Ray nor DeepSpeed.

Models that are added here (an LLM with its projector) have a configuration with a `model_type` of their own
and one line in `CLASSES`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from poma3d.auto.config import Poma3dConfig
from poma3d.auto.folder import save
from poma3d.auto.model import Poma3dModel, Poma3dOutput
from poma3d.auto.processor import Poma3dProcessor

CLASSES = ((Poma3dConfig, Poma3dModel, Poma3dProcessor),)
"""Configuration, model and processor of each kind of model."""

for _config, _model, _processor in CLASSES:
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)

__all__ = ["CLASSES", "Poma3dConfig", "Poma3dModel", "Poma3dOutput", "Poma3dProcessor", "save"]
