"""Charts of a page in a real Chromium: values under the pointer, zoom, log axis, smoothing, boxes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.display.figures import Curve, Mark
from jobs.display.html import ENVIRONMENT
from tests.helpers.view.browser import NEEDS_CHROMIUM, Page, browser

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]
RELOAD_S = 20.0
WIDE, NARROW = (900, 700), (390, 700)
STEPS = [float(step) for step in range(100)]
LOSS = [10.0 ** (2 - step / 50) for step in STEPS]
NOISY = [1.0 + (-1) ** step for step in range(100)]
ALL = "of <b>all"
CURVES = [
    Curve("loss", "step", {"total": (STEPS, LOSS), "jepa": (STEPS, NOISY)}, (Mark(40.0, "restart"),)),
    Curve("rate <b>", "step", {ALL: (STEPS[::10], LOSS[::10])}),
]
PAGE = """{% extends "display/page.html" %}{% import "display/parts.html" as parts %}{% block body %}
<input type="checkbox" data-series="jepa" id="box" checked>
{{ parts.curves(curves) }}{{ chart_library() }}{% endblock %}"""
VALUES = """[...document.querySelectorAll('.u-legend')].map(legend => Object.fromEntries(
  [...legend.querySelectorAll('.u-series:not(.raw)')].map(row => [
    row.querySelector('.u-label').textContent, row.querySelector('.u-value').textContent])))"""


ROWS, IS_OFF = ".u-series ~ .u-series", "row => row.classList.contains('u-off')"
MIDDLE = """(r => [r.x + r.width / 2, r.y + r.height / 2])([...document.querySelectorAll(
  '.u-series:not(.raw) .u-label')].find(label => label.textContent === '{name}').getBoundingClientRect())"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("charts") / "page.html"
    found.write_text(ENVIRONMENT.from_string(PAGE).render(title="t", refresh_s=0, curves=CURVES))
    return found


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(window: Page, path: Path) -> Iterator[Page]:
    window.open(path, *WIDE)
    window.run("sessionStorage.clear()")
    window.open(path, *WIDE)
    yield window
    assert window.errors == []
    assert set(window.requests) == {path.as_uri()}, "nothing else was asked for"


def values(page: Page) -> list[dict[str, str]]:
    found: list[dict[str, str]] = page.run(VALUES)
    return found


def box(page: Page, chart: int = 0) -> tuple[float, float, float, float]:
    x, y, width, height = page.run(
        f"(r => [r.x, r.y, r.width, r.height])(document.querySelectorAll('.u-over')[{chart}]"
        ".getBoundingClientRect())"
    )
    return x, y, width, height


def hover(page: Page, share: float) -> None:
    """Move the pointer over the first chart, to a share of its width."""
    x, y, width, height = box(page)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + share * width, y=y + height / 2)
    page.settle()


def zoom(page: Page, start: float, end: float) -> None:
    x, y, width, _ = box(page)
    page.mouse(*((x + share * width, y + 40) for share in (start, (start + end) / 2, end)))


def smooth(page: Page, weight: float) -> None:
    page.run(
        f"(e => {{ e.value = {weight}; e.dispatchEvent(new Event('input')); }})"
        "(document.querySelector('.chart-tools input[type=range]'))"
    )
    page.settle()


def axis(page: Page) -> Any:
    return page.run("[...document.querySelectorAll('.chart')].map(chart => chart.dataset.axis)")


def test_the_last_values_stand_there_until_the_pointer_asks_for_others(page: Page) -> None:
    assert values(page) == [
        {"step": "99", "total": "1.0471", "jepa": "0"},
        {"step": "90", ALL: "1.5849"},
    ]
    hover(page, 0.5)
    first, second = values(page)
    step = int(first["step"])
    assert 48 <= step <= 51
    assert first == {"step": str(step), "total": f"{LOSS[step]:.5g}", "jepa": f"{NOISY[step]:g}"}
    assert second["step"] == "50", "the other chart shows its nearest point"


def test_a_drag_zooms_all_charts_and_a_button_goes_back(page: Page) -> None:
    whole = "document.querySelector('.chart-tools button').disabled"
    assert page.run(whole)
    zoom(page, 0.2, 0.4)
    assert not page.run(whole)
    hover(page, 0.0)
    assert [18 <= int(each["step"]) <= 22 for each in values(page)] == [True, True]
    page.call("Page.reload")
    page.settle(20)
    hover(page, 0.0)
    assert 18 <= int(values(page)[0]["step"]) <= 22, "a page that is loaded again stays as it was"
    page.click(".chart-tools button")
    hover(page, 0.0)
    assert values(page)[0]["step"] == "0"


def test_a_zoom_that_covers_all_of_a_chart_that_ends_earlier_stays(page: Page) -> None:
    zoom(page, 0.0, 0.95)  # the second chart ends at step 90
    assert not page.run("document.querySelector('.chart-tools button').disabled")
    hover(page, 0.99)
    assert values(page)[0]["step"] in ("93", "94")


def test_a_name_hides_all_its_lines_however_often_they_are_drawn_again(page: Page) -> None:
    lines = f"[...document.querySelectorAll('.u-legend')[0].querySelectorAll('{ROWS}')].map({IS_OFF})"
    assert page.run(lines) == [False, False]
    smooth(page, 0.9)
    assert page.run(lines) == [False, False, False, False], "a faint line and a smooth one for each"
    page.mouse(page.run(MIDDLE.format(name="jepa")))
    assert page.run(lines) == [False, False, True, True]
    page.click(".chart-tools input[type=checkbox]")
    smooth(page, 0.5)
    assert page.run(lines) == [False, False, True, True]
    page.mouse(page.run(MIDDLE.format(name="jepa")))
    smooth(page, 0.0)
    assert page.run(lines) == [False, False]


def test_the_log_axis_is_switched_on_and_off(page: Page) -> None:
    assert axis(page) == ["linear", "linear"]
    before = page.picture()
    page.click(".chart-tools input[type=checkbox]")
    assert axis(page) == ["log", "log"]
    assert np.any(before != page.picture())
    page.click(".chart-tools input[type=checkbox]")
    assert axis(page) == ["linear", "linear"]


def test_smoothing_is_a_mean_over_the_steps_before(page: Page) -> None:
    smooth(page, 0.9)
    weights = 0.9 ** np.arange(100)[::-1]
    mean = float(np.sum(weights * NOISY) / weights.sum())
    assert float(values(page)[0]["jepa"]) == pytest.approx(mean, rel=1e-4)


def test_boxes_of_the_page_choose_series(page: Page) -> None:
    page.click("#box")
    assert list(values(page)[0]) == ["step", "total"]
    page.click("#box")
    assert list(values(page)[0]) == ["step", "total", "jepa"]


def test_names_are_text_and_plots_stay_for_browsers_without_scripts(page: Page, path: Path) -> None:
    assert page.run("document.querySelectorAll('.chart-title')[1].textContent") == "rate <b>"
    shown = "[...document.querySelectorAll('.curves svg')].map(svg => getComputedStyle(svg).display)"
    assert page.run(shown) == ["none", "none"]
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.call("Page.reload")
        end = time.monotonic() + RELOAD_S  # no frames to wait for: asking for them takes scripts
        while page.run(shown) != ["block", "block"]:
            assert time.monotonic() < end
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_finger_reads_values_and_two_zoom(page: Page, path: Path) -> None:
    page.open(path, *NARROW, touch=True)
    assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
    x, y, width, height = box(page)
    middle = y + height / 2
    page.touch([(x + 5, middle)], [(x + width / 2, middle)])
    assert 45 <= int(values(page)[0]["step"]) <= 54
    page.touch(
        [(x + width * 0.4, middle), (x + width * 0.6, middle)],
        [(x + width * 0.2, middle), (x + width * 0.8, middle)],
    )
    assert not page.run("document.querySelector('.chart-tools button').disabled")
