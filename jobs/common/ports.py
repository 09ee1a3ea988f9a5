"""Free ports of this machine."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on; of all interfaces with an empty host."""
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
