"""Pages: complete, escaped, without any resource outside the file, and curves that follow the theme."""

from __future__ import annotations

import re

from jobs.display.html import Curve, bullets, curve_svg, curves, folded, head, page, section, table

CURVE = Curve("loss", "step", {"view": ([0, 1], [2.0, 1.0]), "scene": ([0, 1], [3.0, 1.0])})


def test_a_page_is_whole_and_everything_is_escaped() -> None:
    nasty = "<b>&{{body}}"
    parts = [
        head(nasty, nasty, "bad", nasty, {nasty: nasty}),
        section(nasty, table([nasty, nasty], [[nasty, nasty]]) + bullets([nasty])),
        section("curves", curves([CURVE])),
        "",
        folded(nasty, nasty),
    ]
    text = page("A <title>", parts)
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&amp;{{body}}") == 13
    assert "<title>A &lt;title&gt;</title>" in text
    assert "{{refresh}}" not in text
    assert "http-equiv" not in text
    assert not re.findall(r"<script|<link|@import|url\(['\"]?http", text)
    assert "prefers-color-scheme: dark" in text
    assert 'class="status bad"' in text


def test_a_page_may_load_itself_again() -> None:
    assert '<meta http-equiv="refresh" content="30">' in page("t", [], refresh_s=30)


def test_curves_take_the_colour_of_the_text_and_are_repeatable() -> None:
    svg = curve_svg(CURVE)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#12ab34" not in svg
    assert svg == curve_svg(CURVE)


def test_ids_of_two_curves_do_not_collide() -> None:
    svgs = [curve_svg(Curve(title, "step", {"a": ([0, 1], [0, 1])})) for title in "ab"]
    ids = [set(re.findall(r'id="([mp]\w{9,})"', svg)) for svg in svgs]
    assert ids[0]
    assert not ids[0] & ids[1]
