"""JSON values: their hashes, and numbers that JSON does not have."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def text_digest(text: str, num_bytes: int) -> str:
    """BLAKE2b of a text, `num_bytes` long: short names for files and folders."""
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def finite(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
