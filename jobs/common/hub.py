"""Model names of the Hugging Face hub: told from folders, and not asked for where there is no network."""

from __future__ import annotations

import logging
import os
import re
import socket
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from plinth.errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a hub id looks like: NAME or OWNER/NAME."""
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
"""With one of them set the hub's name need not be known on this machine."""
HTTPS_PORT = 443


def is_path(source: str) -> bool:
    """Whether the source of a model is written as a path, whatever lies there: `demo/teacher` may be both."""
    return "://" not in source and (source.startswith((".", "/", "~")) or not HUB_ID.fullmatch(source))


def check_source(source: str, key: str) -> None:
    """Refuse a folder that is not there, and stop the hub's client from retrying where there is no network:
    half a minute and eleven lines, for what is in the cache already or cannot be had.

    Args:
        source: a folder or a hub id.
        key: of the job, to name in an error.

    Raises:
        ConfigError: it is neither.
    """
    if Path(source).is_dir():
        return
    if source and is_path(source):
        raise ConfigError(
            f"{key} {source}: no such folder, and no hub id (OWNER/NAME) looks like that.", "Check the path."
        )
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not constants.HF_HUB_OFFLINE and not is_known(urlsplit(constants.ENDPOINT).hostname or ""):
        constants.HF_HUB_OFFLINE = True


@lru_cache
def is_known(host: str) -> bool:
    """Whether the name of a host is known here, or a proxy's business."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    try:
        socket.getaddrinfo(host, HTTPS_PORT)
    except OSError:
        return False
    return True
