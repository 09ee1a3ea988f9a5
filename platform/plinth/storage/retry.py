"""Retries: a bounded number, after random waits below a ceiling that doubles each time."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from plinth.errors import StorageError
from plinth.storage import errors as storage_errors
from plinth.storage.options import StorageOptions

log = logging.getLogger(__name__)
T = TypeVar("T")


def retry(
    operation: Callable[[], T],
    name: str,
    options: StorageOptions,
    folder: str = "",
    ask_why: Callable[[], Exception | None] | None = None,
) -> T:
    """The result of `operation`, repeated after transient failures only.

    Args:
        name: URI of the object, for messages.
        folder: where it writes on this machine, for messages; empty for nowhere.
        ask_why: asks the server for the reason of a refusal that gave none; None where this is impossible.

    Raises:
        StorageError: one line that says what to do. Errors that are not the storage's are raised as they are.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return operation()
        except StorageError:
            raise
        except Exception as error:
            if tries <= options.retries and storage_errors.is_transient(error):
                ceiling = min(options.backoff_s * 2 ** (tries - 1), options.max_backoff_s)
                log.info("try %d of %s failed (%s)", tries, name, type(error).__name__)
                time.sleep(random.uniform(0, ceiling))
                continue
            if ask_why is not None and storage_errors.is_bare_refusal(error):
                error = ask_why() or error
            explained = storage_errors.explain(error, name, options, tries, folder)
            if explained is None:
                raise
            raise explained from error
