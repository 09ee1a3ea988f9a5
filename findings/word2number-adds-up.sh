#!/usr/bin/env bash
# word2number 1.1 reads a number from any text with a number word in it, and adds up what has no place: "two chairs
# and three tables" is 5, "hundred two" is 200, "minus two" is 2, and the word "point" alone is 0. Nothing is raised,
# but "2 chairs" is an error. Hypo3D's metric normalises answers and predictions by it, a word at a time: so "point"
# equals "zero" there, and "twenty one" is "20 1". It hurts whoever scores answers with it. What we do: `poma score`
# reproduces that metric from a table of its single words and says so beside the figure; nothing else uses it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check setuptools wheel
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation word2number==1.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from word2number import w2n

wanted = {"two chairs and three tables": 5, "hundred two": 200, "minus two": 2, "point": 0, "2 chairs": None}
for text, number in wanted.items():
    try:
        seen = w2n.word_to_num(text)
    except ValueError:
        seen = None
    print(f"word2number 1.1: {text!r} is {seen}")
    assert seen == number, "it changed"
PYTHON
