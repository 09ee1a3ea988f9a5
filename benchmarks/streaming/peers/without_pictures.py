"""StreamingDataset imports torchvision, for its readers of published picture sets.

A torchvision whose binary part does not fit the installed torch (CPU wheel of one, CUDA wheel of the other)
fails at import; nothing here needs it.
"""

from __future__ import annotations

import sys
from types import ModuleType


def import_streaming() -> ModuleType:
    """The library, without its readers of pictures where torchvision cannot be imported."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["streaming.vision"] = ModuleType("streaming.vision")
    import streaming

    return streaming
