"""Write `docs/benchmarks.md`: the published tables beside our figures.

python -m benchmarks.published [--take ROW=FILE ...] [--check]

--take reads the figures of a row from what its command wrote, and keeps them in ours.json beside this file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.published.page import page
from benchmarks.published.tables import Ours, published
from benchmarks.published.take import take

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> int:
    """Take what is given, write or compare the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--take", action="append", default=[], metavar="ROW=FILE", help="a row's figures")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is old")
    arguments = parser.parse_args()
    tables, ours = published(), Ours.read()
    for given in arguments.take:
        key, _, file = given.partition("=")
        if key not in tables.rows:
            print(f"there is no row {key}; there are {', '.join(tables.rows)}", file=sys.stderr)
            return 2
        try:
            ours.rows[key] = take(tables.rows[key], Path(file))
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
    text = page(tables, ours)
    if arguments.check:
        is_new = text == PAGE.read_text(encoding="utf-8")
        print(f"{PAGE.name} is {'as it should be' if is_new else 'old: run this without --check'}")
        return 0 if is_new else 1
    if arguments.take:
        ours.write()
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
