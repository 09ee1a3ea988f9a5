"""Pages: complete, escaped, without any resource outside the file, and curves that follow the theme."""

from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError

from jobs.display.figures import Curve, curve_svg
from jobs.display.html import ENVIRONMENT, render
from plinth.observe.ledger import CATEGORIES, LedgerSummary

CURVE = Curve("loss", "step", {"view": ([0, 1], [2.0, 1.0]), "scene": ([0, 1], [3.0, 1.0])})
NASTY = "<script>alert(1)</script>&{{ title }}"
PARTS = """{% extends "display/page.html" %}{% import "display/parts.html" as parts %}{% block body %}
{{ parts.head(nasty, nasty, "bad", nasty, {nasty: nasty}) }}
{{ parts.table([nasty, nasty], [[nasty, nasty]]) }}{{ parts.bullets([nasty]) }}
{{ parts.curves([curve]) }}{{ parts.folded(nasty, nasty) }}{{ parts.ledger(ledger) }}
{% endblock %}"""


def drawn(ledger: LedgerSummary | None = None) -> str:
    template = ENVIRONMENT.from_string(PARTS)
    return template.render(
        title=NASTY, refresh_s=0, nasty=NASTY, curve=CURVE, ledger=ledger or LedgerSummary()
    )


def test_page_escapes_every_part_and_is_self_contained() -> None:
    text = drawn()
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;{{ title }}") == 13
    assert "http-equiv" not in text
    assert "<script>alert" not in text
    assert not re.findall(r"<script src|<link|@import|url\(['\"]?http", text)
    assert "prefers-color-scheme: dark" in text
    assert 'class="status bad"' in text


def test_ledger_bar_leaves_out_empty_categories() -> None:
    seconds = dict.fromkeys(CATEGORIES, 0.0) | {"productive": 48.0, "start_up": 12.0}
    text = drawn(LedgerSummary(wall_s=60, seconds=seconds))
    shares = [float(share) for share in re.findall(r"flex: ([\d.]+);", text)]
    assert shares == [0.8, 0.2]
    assert "productive 80.0%" in text
    assert "start up 20.0%" in text
    assert "idle 0" not in text
    assert "<td>48 s</td>" in text
    assert "Where the time went" not in drawn()


def test_page_refreshes_when_asked() -> None:
    assert '<meta http-equiv="refresh" content="30">' in render("display/page.html", "t", refresh_s=30)


def test_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="name"):
        render("runs/page.html", "t")


def test_curves_take_the_colour_of_the_text_and_are_repeatable() -> None:
    svg = curve_svg(CURVE)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#12ab34" not in svg
    assert svg == curve_svg(CURVE)


def test_curve_names_are_text_not_mathematics_or_markup() -> None:
    svg = curve_svg(Curve("$x^2$", "step", {"<script>": ([0, 1], [0, 1]), "b": ([0, 1], [0, 1])}))
    assert "$x^2$" in svg
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg


def test_ids_of_two_curves_do_not_collide() -> None:
    svgs = [curve_svg(Curve(title, "step", {"a": ([0, 1], [0, 1])})) for title in "ab"]
    ids = [set(re.findall(r'id="([mp]\w{9,})"', svg)) for svg in svgs]
    assert ids[0]
    assert not ids[0] & ids[1]
