"""The cleaning of answers that LEO, MSR3D, UniScene3D and SQA3D's script for language models share.

It is reproduced with its oddities, because published figures depend on them: `none` becomes `zero` and `let`
becomes `left`; `tv` becomes `TV`, so a cleaned answer is not lower-case; `3.5 m` becomes `35 m`,
`brown/black` becomes `brownblack`, and `façade` `faade`; a final line break stays, so that `yes` with one is
not `yes`; `21` and `24` stay digits where `20` and `23` become words. Sources: SQA3D eval_sqa3d_llm, LEO
data_utils.
"""

from __future__ import annotations

import re
from functools import lru_cache

UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
REPAIRS = {
    "letf": "left", "let": "left", "rigth": "right", "rght": "right", "tehre": "there", "behine": "behind",
    "chai": "chair", "wasing": "washing", "waslked": "walked", "oclock": "o'clock", "tv": "TV",
    "none": "zero", "23": "twenty-three", **{str(number): word for number, word in enumerate(UNITS)},
}  # fmt: skip
"""Whole words that are replaced; no replacement is a word that is replaced."""
DROPPED = re.compile(r"[^a-zA-Z0-9,'\s\-:]+")
"""What is no letter of ASCII, digit, white space or one of , ' - : goes, without a blank in its place."""
BLANKS = re.compile(" +")
OUTER_BLANKS = re.compile("^ +| +$")
"""Also those before a final line break, which `$` passes over."""
WORD = re.compile(rf"\b(?:{'|'.join(sorted(REPAIRS, key=len, reverse=True))})\b")
CLOCK = re.compile(r"\bo' +clock\b")
GLUED_DIGIT = re.compile(r"\b([a-zA-Z]+)[0-9]\b")
ARTICLES = tuple(re.compile(rf"\b{article} ([a-zA-Z]+)") for article in ("a", "an", "the"))
KEPT = 65_536
"""Answers whose cleaned text is remembered: three rules compare the same ones."""
BACKWARDS = re.compile(r"\bbackwards\b")


@lru_cache(maxsize=KEPT)
def clean(answer: str) -> str:
    """A predicted or listed answer as the matches of `poma3d.annotations.scoring.matching` compare it."""
    text = BLANKS.sub(" ", OUTER_BLANKS.sub("", answer.lower()))
    text = DROPPED.sub("", text)
    text = WORD.sub(lambda found: REPAIRS[found[0]], text)
    text = CLOCK.sub("o'clock", text)
    text = GLUED_DIGIT.sub(r"\1", text)
    for article in ARTICLES:
        text = article.sub(r"\1", text)
    return BACKWARDS.sub("backward", text)
