"""Object storage and folders behind one interface, with retries, atomic writes and a run lock."""

from plinth.storage.errors import MissingKeyError
from plinth.storage.options import StorageOptions
from plinth.storage.store import Storage

__all__ = ["MissingKeyError", "Storage", "StorageOptions"]
