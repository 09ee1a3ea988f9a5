"""Patterns of secrets, for files that must hold none."""

from __future__ import annotations

import re

SECRETS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token of a known service": re.compile(r"\b(?:ghp_|hf_|sk-|xox[bp]-)[A-Za-z0-9]{16,}"),
    "a long random word": re.compile(
        r"(?<![\w/.:@-])(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[A-Za-z0-9+]{32,}(?![\w/.-])"
    ),
    "a secret written down": re.compile(
        r"(?i)\b(?:password|passwd|secret|secret_key|access_key|api_key|auth_token|token)\b\s*[:=]\s*"
        r"[\"']?(?!token\b|null\b|\{|\$)[A-Za-z0-9+/]{8,}"
    ),
}  # fmt: skip
NOT_SECRET = ("auth_token: ~/.ray/auth_token",)


def findings(text: str) -> list[str]:
    """What looks like a secret in the text of a file."""
    for known in NOT_SECRET:
        text = text.replace(known, "")
    return [what for what, pattern in SECRETS.items() if pattern.search(text)]
