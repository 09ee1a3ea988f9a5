"""HTML pages from Jinja2 templates: each one file that needs nothing else, for light and dark screens.

A page's template lies beside the module that fills it and is named by its path below jobs/, such as
`runs/page.html`. It extends `display/page.html` and takes its parts from `display/parts.html`. Everything is
escaped: names of runs, scenes and trials, captions and messages are not to be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs.display.figures import curve_svg
from jobs.display.ledger import ledger_table

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"svg": curve_svg, "ledger_table": ledger_table}


def render(template: str, title: str, refresh_s: int = 0, **values: Any) -> str:
    """The whole page.

    Args:
        template: its path below jobs/.
        refresh_s: seconds after which a browser loads the page again; 0 never.
        values: what the template shows.
    """
    return ENVIRONMENT.get_template(template).render(title=title, refresh_s=refresh_s, **values)


# What follows is for jobs/sweep/page.py alone, until it has a template.
def page(title: str, parts: Sequence[str], refresh_s: int = 0) -> str:
    """The whole page. `parts` are HTML; `title` is text."""
    source = '{% extends "display/page.html" %}{% block body %}{{ body }}{% endblock %}'
    body = Markup("\n".join(part for part in parts if part))
    return ENVIRONMENT.from_string(source).render(title=title, refresh_s=refresh_s, body=body)


def _part(name: str, *values: Any) -> str:
    return str(getattr(ENVIRONMENT.get_template("display/parts.html").module, name)(*values))


def head(title: str, status: str, tone: str, summary: str, facts: Mapping[str, str]) -> str:
    """Title, status in the colour of its tone (good, fair or bad), a line of summary, labelled values."""
    return _part("head", title, status, tone, summary, facts)


def section(title: str, body: str) -> str:
    """A heading and HTML below it."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; the first column names the rows."""
    return _part("table", header, rows)


def folded(title: str, text: str) -> str:
    """Preformatted text behind its title."""
    return _part("folded", title, text)
