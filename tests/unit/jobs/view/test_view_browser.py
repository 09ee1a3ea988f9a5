"""The page of a scene in a real Chromium: it is turned, zoomed, chosen from by mouse, touch and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import pytest

from jobs.view.config import PageConfig
from jobs.view.page import Ranking, page_of, write_page
from jobs.view.scene import shown_scene, views_of
from tests.helpers.view.browser import NEEDS_CHROMIUM, Page, browser
from tests.helpers.view.scenes import SCRIPT, sample

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]
WIDE, NARROW = (860, 480), (390, 780)
MIDDLE = (230.0, 240.0)
"""Of the canvas in the wide window."""
SHIFT = 8
CONFIG = PageConfig(points=5000)
RANKINGS = [Ranking("the blue wall", [0.1, 0.2, 0.4, 0.3]), Ranking(SCRIPT, [-0.1, 0.6, 0.2, 0.3])]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    scene = shown_scene(SCRIPT, [sample()], views_of([sample()]), CONFIG)
    return {
        "view": write_page(page_of(scene, CONFIG), folder / "view.html"),
        "located": write_page(page_of(scene, CONFIG, RANKINGS), folder / "located.html"),
    }


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(window: Page, pages: dict[str, Path]) -> Iterator[Page]:
    """The plain page in a wide window, without flights; whatever a test does must go without an error."""
    window.open(pages["view"], *WIDE, still=True)
    yield window
    assert window.errors == []
    assert window.requests == [pages["view"].as_uri()], "nothing else was asked for"


def canvas(page: Page) -> np.ndarray:
    """The scene as it is seen, without hint and tools."""
    return page.picture()[80:390, :450]


def chosen(page: Page) -> str:
    found: str = page.run("document.querySelector('#views [aria-current=true]').dataset.view")
    return found


def colours_in(picture: np.ndarray) -> int:
    return len(np.unique(picture.reshape(-1, 3) // 16, axis=0))


def changed(before: np.ndarray, after: np.ndarray) -> bool:
    return bool((np.abs(before.astype(int) - after).max(axis=-1) > 20).mean() > 0.01)


def test_the_cloud_is_drawn_and_names_stay_text(page: Page) -> None:
    assert colours_in(canvas(page)) > 20, "the canvas is not blank"
    assert page.run("document.querySelector('h1').textContent") == SCRIPT
    assert page.run("window.hacked") is None
    assert page.run("document.querySelector('#captions li').textContent") == f"wall 0 {SCRIPT}"


def test_a_frame_without_a_size_is_drawn_once_it_has_one(
    window: Page, pages: dict[str, Path], tmp_path: Path
) -> None:
    """As in the demo's report on a small screen."""
    held = escape(pages["view"].read_text(encoding="utf-8"))
    holder = tmp_path / "holder.html"
    frame = f'<iframe style="width: 0; height: 0; border: 0" srcdoc="{held}">'
    holder.write_text(f"<!doctype html><body style='margin: 0'>{frame}</iframe></body>", encoding="utf-8")
    window.open(holder, *WIDE, still=True)
    window.settle(10)
    assert window.errors == []
    assert colours_in(canvas(window)) == 1
    window.run("document.querySelector('iframe').style = 'width: 100%; height: 480px; border: 0'")
    window.settle(10)
    assert colours_in(canvas(window)) > 20
    assert window.errors == []


def test_a_click_on_a_view_selects_it(page: Page) -> None:
    before = canvas(page)
    page.click("#views li:nth-child(3) button")
    assert chosen(page) == "2"
    assert page.run("document.querySelector('#said').textContent") == "view 2"
    assert page.run("document.querySelector('#picture').src") == page.run(
        "document.querySelector('#views [data-view=\"2\"] img').src"
    )
    assert changed(before, canvas(page)), "what it sees is marked in the cloud"


def test_the_slider_goes_through_the_views(page: Page) -> None:
    page.run("document.querySelector('#at').focus()")
    page.key("ArrowRight")
    assert chosen(page) == "1"
    page.click("#after")
    page.click("#after")
    page.click("#after")
    assert chosen(page) == "3", "it stops at the last"


@pytest.mark.parametrize(
    "way",
    ["drag", "move", "wheel", "arrow", "shift-arrow", "plus", "minus", "above", "through", "height", "cut"],
)
def test_it_is_turned_zoomed_and_shown_in_other_ways(page: Page, way: str) -> None:
    before = canvas(page)
    x, y = MIDDLE
    focus = "document.querySelector('#canvas').focus()"
    if way == "drag":
        page.mouse((x, y), (x + 60, y + 10), (x + 120, y + 20))
    elif way == "move":
        page.mouse((x, y), (x + 60, y + 10), (x + 120, y + 20), button="right")
    elif way == "wheel":
        page.wheel(x, y, -600)
    elif way == "cut":
        page.run(
            "(e => { e.value = 20; e.dispatchEvent(new Event('input')); })(document.querySelector('#cut'))"
        )
        page.settle()
    elif way in ("above", "through", "height"):
        page.click(f"#{way}")
    else:
        page.run(focus)
        keys = {
            "arrow": ("ArrowLeft", 0),
            "shift-arrow": ("ArrowUp", SHIFT),
            "plus": ("+", 0),
            "minus": ("-", 0),
        }
        for _ in range(4):
            page.key(*keys[way])
    assert changed(before, canvas(page))


def test_home_goes_back_to_where_it_began(page: Page) -> None:
    before = canvas(page)
    page.mouse(MIDDLE, (300, 260), (360, 270))
    page.click("#home")
    assert not changed(before, canvas(page))


def test_a_click_on_a_camera_in_the_cloud_selects_it(page: Page) -> None:
    """From above all four cameras stand in the middle and their pyramids point to the four walls."""
    page.click("#above")
    box = "document.querySelector('#canvas').getBoundingClientRect()"
    x, y = page.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({box})")
    found = set()
    for across, down in ((0, -30), (-30, 0), (0, 30), (30, 0)):
        page.mouse((x + across, y + down))
        found.add(chosen(page))
    assert found == {"0", "1", "2", "3"}


def test_it_turns_by_itself_only_when_asked(page: Page) -> None:
    first = canvas(page)
    page.settle(20)
    assert not changed(first, canvas(page))
    page.click("#turn")
    page.settle(60)
    assert changed(first, canvas(page))
    page.click("#turn")


def test_ranked_views_stand_in_the_order_of_each_text(window: Page, pages: dict[str, Path]) -> None:
    window.open(pages["located"], *WIDE, still=True)
    order = "[...document.querySelectorAll('#views button')].map(b => b.dataset.view).join('')"
    best = "[...document.querySelectorAll('#views .best')].map(b => b.dataset.view).join('')"
    assert (window.run(order), window.run(best), chosen(window)) == ("2310", "2", "2")
    red = canvas(window)
    assert ((red[..., 0].astype(int) - red[..., 1:].max(axis=-1)) > 90).mean() > 0.005, "the best is red"
    window.click("#texts label:nth-of-type(2)")
    assert (window.run(order), window.run(best), chosen(window)) == ("1320", "1", "1")
    assert window.run("document.querySelector('#said').textContent") == "number 1 of 4: view 1, cosine 0.600"
    assert window.errors == []


def test_a_narrow_window_has_all_of_it(window: Page, pages: dict[str, Path]) -> None:
    window.open(pages["located"], *NARROW, still=True, touch=True)
    assert window.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
    before = window.picture()[60:420]
    assert colours_in(before) > 20
    window.touch([(150.0, 250.0)], [(200.0, 260.0)], [(260.0, 270.0)])
    turned = window.picture()[60:420]
    assert changed(before, turned)
    window.touch(
        [(150.0, 250.0), (200.0, 250.0)], [(120.0, 250.0), (240.0, 250.0)], [(80.0, 250.0), (300.0, 250.0)]
    )
    assert changed(turned, window.picture()[60:420]), "two fingers zoom"
    window.click("#views li:nth-child(2) button")
    assert chosen(window) == "3"
    assert window.errors == []


def test_dark_screens_have_a_dark_stage(window: Page, pages: dict[str, Path]) -> None:
    corners = {}
    for dark in (False, True):
        window.open(pages["view"], *WIDE, dark=dark, still=True)
        corners[dark] = window.picture()[200:220, 5:25].mean()
    assert corners[False] > 200
    assert corners[True] < 60


def test_flights_are_left_out_for_those_who_want_no_motion(window: Page, pages: dict[str, Path]) -> None:
    window.open(pages["view"], *WIDE, still=False)
    before = canvas(window)
    window.click("#above")
    window.settle(90)
    flown = canvas(window)
    window.open(pages["view"], *WIDE, still=True)
    window.click("#above")
    assert changed(before, flown)
    assert not changed(flown, canvas(window)), "at once where the other one flew"


def test_without_webgl_the_views_remain(window: Page, pages: dict[str, Path]) -> None:
    blind = "HTMLCanvasElement.prototype.getContext = () => null"
    script = window.call("Page.addScriptToEvaluateOnNewDocument", source=blind)["identifier"]
    window.open(pages["located"], *WIDE, still=True)
    window.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert window.run("document.querySelector('#sorry').hidden") is False
    window.click("#views li:nth-child(2) button")
    assert chosen(window) == "3"
    assert window.run("document.querySelector('#picture').naturalWidth") > 0
