"""Hashes of texts and of JSON values, as hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def text_digest(text: str, num_bytes: int) -> str:
    """BLAKE2b of a text, `num_bytes` long: short names for files and folders."""
    return hashlib.blake2b(text.encode(), digest_size=num_bytes).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
