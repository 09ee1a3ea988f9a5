"""Types of questions by the published rules. They look at the question alone, never at the joined text."""

from __future__ import annotations

from enum import Enum

SQA3D_TYPES = ("what", "is", "how", "can", "which")
OTHER = "other"
SCANQA_TYPES = (
    ("place", ("Where",)),
    ("number", ("How many",)),
    ("color", ("What color", "What is the color")),
    ("object nature", ("What shape", "What type", "What kind")),
    ("object", ("What is",)),
)
"""Class and the texts of which a question holds one, in the order in which they are tried. Case counts.
Source: ScanQA's scripts, compared with the published counts of its validation split."""


class TypeRule(Enum):
    """How SQA3D's questions are told apart."""

    prefix = "prefix"
    """The lower-cased question begins with the word's letters: `Isn't` and `Island` are `is`, `However` is
    `how` (3D-VisTA, LEO, MSR3D, UniScene3D; the published counts)."""
    token = "token"
    """The first token, without punctuation and with 's split off, is the word (SQA3D's MCAN)."""
    word = "word"
    """The first word up to a blank is the word, so `What's` is `other` (SQA3D's ClipBERT)."""


def sqa3d_type(question: str, rule: TypeRule = TypeRule.prefix) -> str:
    """One of `SQA3D_TYPES`, or `other`."""
    text = question.lstrip().lower()
    if rule is TypeRule.prefix:
        return next((name for name in SQA3D_TYPES if text.startswith(name)), OTHER)
    if rule is TypeRule.token:
        text = text.translate(str.maketrans("", "", ",.?")).replace("'s", " 's")
    first = text.split(" ", 1)[0]
    return first if first in SQA3D_TYPES else OTHER


def scanqa_type(question: str) -> str:
    """One of ScanQA's six classes."""
    return next((name for name, signs in SCANQA_TYPES if any(sign in question for sign in signs)), OTHER)
