"""What text must not carry to a log, a page or a terminal: secrets, and codes that act on it.

What looks like a secret, or is one in this process's environment, becomes ***. Names stay (a secret should be
given as `storage.secret_key_env=MY_KEY`); values are hidden. In text from data, escape codes would colour or
retitle a terminal, and a line break in an id would make a line of its own.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping

HIDDEN = "***"
KEPT = "\n\t"
"""Characters that act on a terminal and stay in a text of several lines."""
LEAST_SECRET_CHARS = 6
"""Shorter values of variables are shown: hiding every 1 or true would make logs unreadable."""

_SECRET_NAME = re.compile(r"_SECRET|_KEY$|_KEY_ID$|_TOKEN$|PASSWORD", re.IGNORECASE)
_PATTERNS = (
    # Parameters of presigned URLs (S3, GCS, Azure) and of the header that carries the same.
    (
        r"\b(X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId"
        r"|Signature|Credential|sig)=[^&\s\"'<>,;]+",
        r"\1=" + HIDDEN,
    ),
    (r"\b(bearer|authorization[\"']?\s*[:=]\s*[\"']?basic)\s+[\w.~+/=-]{16,}", r"\1 " + HIDDEN),
    # name: value and name=value, as in headers, environments, YAML and JSON.
    (
        r"\b((?:[\w-]*[_-])?(?:secret(?:[_-]?access)?(?:[_-]?key)?|password|passwd|token"
        r"|(?:api|access|private|account)[_-]?key(?:[_-]?id)?)[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&}]{4,}",
        r"\1" + HIDDEN,
    ),
    (r"(://)[^/\s@:]+:[^/\s@]+@", r"\1" + HIDDEN + "@"),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", HIDDEN),
    # Keys with a known prefix: AWS, Hugging Face, GitHub.
    (r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b", HIDDEN),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), by) for pattern, by in _PATTERNS)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without secrets.

    Args:
        environment: values whose names mark them as secret are hidden; None for this process's environment.
    """
    for value in _values(os.environ if environment is None else environment):
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name is assumed to hold a secret."""
    return bool(_SECRET_NAME.search(name))


class RedactionFilter(logging.Filter):
    """For a handler: redacts a record's message, arguments and traceback, also for later handlers; what is
    no text in them is escaped."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass."""
        record.msg, record.args = without_codes(redact(record.getMessage())), None
        if record.exc_info:
            record.exc_text = without_codes(redact(logging.Formatter().formatException(record.exc_info)))
            record.exc_info = None  # else a formatter renders it again
        return True


def _values(environment: Mapping[str, str]) -> list[str]:
    """Secret values, the longest first: one may be part of another."""
    found = {
        value
        for name, value in environment.items()
        if len(value) >= LEAST_SECRET_CHARS and _SECRET_NAME.search(name)
    }
    return sorted(found, key=lambda value: (-len(value), value))


def printable(text: str) -> str:
    """A text from data in one line: line breaks, escape codes and what is no Unicode as backslash escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def without_codes(text: str) -> str:
    """The same for a text of several lines, which stay."""
    return "".join(c if c in KEPT else printable(c) for c in text)
