"""Every page in a real Chromium, light and dark, on a wide screen and on a phone: no error, nothing asked for
from elsewhere, no sideways scroll, all charts drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.demo.report import Example, Examples, Found, FoundBy, Picture, Report, write_report
from jobs.display.figures import Curve
from jobs.evaluate.tables import Row, Table
from jobs.pretrain.config import PretrainJob
from jobs.prove_resume import page as prove_page
from jobs.prove_resume.compare import Interruption, Result, compare
from jobs.runs import page as run_page
from jobs.runs.compare import write_runs_page
from jobs.sweep import page as sweep_page
from jobs.view.config import PageConfig
from jobs.view.page import page_of
from jobs.view.scene import shown_scene, views_of
from plinth.storage import Storage
from poma3d.evaluate.bootstrap import Estimate
from tests.helpers.run_folder import NOW, killed_run
from tests.helpers.sweep_folder import asha_sweep
from tests.helpers.view.browser import NEEDS_CHROMIUM, Page, browser
from tests.helpers.view.scenes import sample

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]
PHONE, WIDE = (390, 800), (1200, 900)
PAGES = {"run": 10, "runs": 14, "sweep": 1, "prove-resume": 3, "report": 1}
"""Page -> charts on it."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    run, sweep = killed_run(folder / "runs"), asha_sweep(folder, gpus=1)
    uris = {
        "run": run_page.write_page(run, NOW),
        "runs": write_runs_page(Storage.from_uri(folder / "runs"), NOW),
        "sweep": sweep_page.write_page(sweep, NOW),
    }
    return {
        **{name: Path(uri) for name, uri in uris.items()},
        "prove-resume": _prove_resume(folder),
        "report": _report(folder),
    }


def _prove_resume(folder: Path) -> Path:
    def result(error: float = 0.0) -> Result:
        went_on = [Interruption(4, "killed"), Interruption(4, "stopped, 2 → 1")] if error else []
        weights = {"main/master": torch.ones(3) + error}
        losses = [3 - 0.1 * i + error for i in range(10)]
        return Result(["a"] * 10, losses, [2] * 10, weights, 3, 1, 0, went_on, "ab" * 32)

    compared = compare("a-name-of-a-scenario", "kill -9", result(), result(1e-3), must_be_identical=True)
    return prove_page.write_page(folder, PretrainJob(), [compared], {"straight": 12.0})


def _report(folder: Path) -> Path:
    scene = shown_scene("room", [sample()], views_of([sample()]), PageConfig(points=3000))
    image = np.full((64, 256, 3), 90, np.uint8)
    found = [Found(f"room-0-100000{i}", i + 1, 0.5, i == 1, image) for i in range(6)]
    columns = ["R@1 (one view's caption)", "R@3 (3 views' captions, joined)", "scene (the scene's caption)"]
    cells: list[Estimate | float | None] = [Estimate(0.0625, 0.03, 0.11, np.zeros(1))] * 3
    report = Report(
        title="A report",
        status="It learned",
        good=True,
        tables=[Table("Retrieval", columns, [Row("teacher on colour images", "the ceiling", cells)])],
        curves={"main": [Curve("loss", "step", {"view": ([0, 1], [2.0, 1.0])})]},
        pictures=[Picture(image, "point maps")],
        examples=Examples([Example("two chairs", [FoundBy("model", 2, found)])], "1 of 9"),
        room=page_of(scene, PageConfig(points=3000)),
        room_still=image,
        room_file="room.html",
    )
    return write_report(report, folder / "report.html")


STILL = ".room img"


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "wide"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(
    window: Page, pages: dict[str, Path], name: str, size: tuple[int, int], dark: bool
) -> None:
    window.open(pages[name], *size, dark=dark, touch=size == PHONE)
    window.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    window.settle(10)
    assert window.errors == []
    assert window.requests == [pages[name].as_uri()]
    assert window.run("document.documentElement.scrollWidth") == size[0], "nothing is cut off at the side"
    assert window.run("document.querySelectorAll('.chart canvas').length") == PAGES[name]
    assert window.run("[...document.querySelectorAll('.chart canvas')].every(c => c.clientWidth > 250)")


def test_a_table_that_is_too_wide_shows_that_there_is_more(window: Page, pages: dict[str, Path]) -> None:
    """A shadow at its right end, which is gone when it is scrolled there."""
    window.open(pages["sweep"], *PHONE)
    place = "document.querySelector('.best .scroll')"
    window.run(f"{place}.scrollIntoView()")
    assert window.run(f"{place}.scrollWidth > {place}.clientWidth")
    x, y, width = window.run(f"(r => [r.x, r.y, r.width])({place}.getBoundingClientRect())")
    window.settle()
    before = window.picture()[round(y) + 4, round(x + width) - 3].astype(int)
    window.run(f"{place}.scrollLeft = 9999")
    window.settle()
    after = window.picture()[round(y) + 4, round(x + width) - 3].astype(int)
    assert before.mean() < after.mean() - 20


def test_the_room_in_the_report_is_drawn_and_waits_for_a_click(window: Page, pages: dict[str, Path]) -> None:
    window.open(pages["report"], *WIDE)
    x, y, height = window.run(
        "(r => [r.x, r.y, r.height])(document.querySelector('.room').getBoundingClientRect())"
    )
    window.settle(30)

    def cloud() -> np.ndarray:
        picture = window.picture()
        return picture[round(y) + 60 : min(round(y + height), 900) - 120, round(x) + 10 : round(x) + 300]

    assert window.run(f"!document.querySelector('{STILL}')"), "its picture makes room for it"
    still = cloud()
    assert len(np.unique(still.reshape(-1, 3) // 16, axis=0)) > 20, "it is not blank"
    scrolled = "document.scrollingElement.scrollTop"
    window.wheel(x + 200, y + 200, 60)
    window.settle(20)
    assert window.run(scrolled) > 0, "the wheel is the page's"
    window.run("scrollTo(0, 0)")
    window.click(".room button")
    assert not window.run("document.querySelectorAll('.room button').length")


def test_a_room_that_is_not_drawn_is_a_picture(window: Page, pages: dict[str, Path], tmp_path: Path) -> None:
    """As without WebGL."""
    broken = tmp_path / "report.html"
    broken.write_text(pages["report"].read_text().replace("new THREE.WebGLRenderer", "new NoRenderer"))
    window.open(broken, *WIDE)
    window.settle(30)
    x, y, width, height = window.run(
        f"(r => [r.x, r.y, r.width, r.height])(document.querySelector('{STILL}').getBoundingClientRect())"
    )
    at = round(y + height / 2) - 60, round(x + width / 2)
    assert window.picture()[at].tolist() == [90, 90, 90], "the picture's colour"
    window.click(".room button")
    assert window.run(f"!document.querySelector('{STILL}')"), "what the room's page says is then seen"
