"""When a predicted answer is right: four published rules, from the strictest to the loosest.

    raw      equal to a listed answer, nothing cleaned (ScanQA's EM@1; what a classifier is scored by)
    strict   equal to a listed answer after cleaning (MSR3D's EM)
    leo      LEO's EM: ended by the first listed answer that agrees in any way; right if that is equal
    refined  EM-R: one of the two holds the other, white space removed (MSR3D's and LEO's target metric)

LEO's EM is below the true one: with ["dark brown", "brown"], "brown" is wrong, because "dark brown" holds it
and comes first. The refined rule takes an empty prediction for every question, "seven" for "even" and "one"
for "phone": never a headline.
"""

from __future__ import annotations

from collections.abc import Sequence

from poma3d.annotations.scoring.cleaning import clean


def raw(predicted: str, answers: Sequence[str]) -> bool:
    """Equal as they stand."""
    return predicted in answers


def strict(predicted: str, answers: Sequence[str]) -> bool:
    """Equal after cleaning."""
    return clean(predicted) in map(clean, answers)


def leo(predicted: str, answers: Sequence[str]) -> bool:
    """Whether the first answer that agrees in any way is equal."""
    mine = clean(predicted)
    agreeing = (answer for answer in map(clean, answers) if answer == mine or _hold(mine, answer))
    return next(agreeing, None) == mine


def refined(predicted: str, answers: Sequence[str]) -> bool:
    """Whether some answer agrees in any way."""
    mine = clean(predicted)
    return any(_hold(mine, answer) for answer in map(clean, answers))


def _hold(first: str, second: str) -> bool:
    """Whether one text holds the other, without white space."""
    one, other = ("".join(text.split()) for text in (first, second))
    return one in other or other in one


def among(predicted: Sequence[str], answers: Sequence[str], k: int) -> bool:
    """Whether one of the first `k` predictions is a listed answer, nothing cleaned."""
    return any(raw(each, answers) for each in predicted[:k])
