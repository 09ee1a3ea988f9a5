"""YAML whose whole numbers mean what they look like.

YAML 1.1 reads 0010 as 8, 1_000 as 1000 and 12:30 as 750; ids of scans, revisions and times are often written
so. Such a scalar is taken as text; where a number is expected, it is read as a decimal one.
"""

from __future__ import annotations

import yaml

INTEGER = "tag:yaml.org,2002:int"


def quote_odd_integers(text: str) -> str:
    """The same YAML with quotes around whole numbers that would be read as another one, or written otherwise.

    What is no YAML comes back as it is: whoever parses it says what is wrong.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return text
    places = sorted(_odd_integers(root), reverse=True)
    for start, stop in places:
        text = f"{text[:start]}'{text[start:stop]}'{text[stop:]}"
    return text


def _odd_integers(root: yaml.Node | None) -> set[tuple[int, int]]:
    """Where they stand in the text; a node that several aliases share stands there once."""
    found: set[tuple[int, int]] = set()
    seen: set[int] = set()
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if node.tag == INTEGER and node.style is None and not _is_plain(node.value):
                found.add((node.start_mark.index, node.end_mark.index))
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        else:
            waiting += node.value
    return found


def _is_plain(value: str) -> bool:
    """Whether a whole number is written as Python would write it."""
    digits = value.removeprefix("-")
    return value == "0" or (digits.isdecimal() and not digits.startswith("0"))
