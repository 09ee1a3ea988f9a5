"""A real Chromium for tests of pages, driven by its DevTools protocol; tests skip where there is none."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 60.0
WAIT_S = 30.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--no-first-run", "--disable-extensions", "--hide-scrollbars",
    "--remote-debugging-port=0", "--disable-background-networking",
)  # fmt: skip
BAD_LEVELS = ("error", "assert")


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


NEEDS_CHROMIUM = pytest.mark.skipif(
    chromium() is None,
    reason=f"pages are looked at in a browser, which pip cannot install; there is none of {', '.join(NAMES)}",
)
"""Chromium is no Python package, so no step of this project's installs it."""


class Page:
    """A page in a browser: looks at it, clicks, types; keeps what went wrong in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.loop, self.socket, self.ids = loop, socket, count(1)
        self.errors: list[str] = []
        """Uncaught exceptions, console errors and refused or failed requests."""
        self.requests: list[str] = []
        """Every URL that was asked for, but for data in the page itself."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        return self.loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self.ids)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await asyncio.wait_for(self.socket.receive(), WAIT_S)).data)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, said: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and said["type"] in BAD_LEVELS:
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in said["args"]))
        elif event == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"]["text"])
        elif event == "Network.requestWillBeSent" and not said["request"]["url"].startswith("data:"):
            self.requests.append(said["request"]["url"])

    def open(
        self,
        path: Path,
        width: int,
        height: int,
        dark: bool = False,
        still: bool = False,
        touch: bool = False,
    ) -> None:
        """Load a file in a window of a size, and wait until it has settled."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=2 if touch else 1)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + WAIT_S
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < end, "the page does not load"
        self.settle()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def settle(self, frames: int = 3) -> None:
        """Wait until the page has been drawn a few times."""
        self.run(
            f"new Promise(done => {{ let n = {frames};"
            " const f = () => n-- ? requestAnimationFrame(f) : done(); f(); })"
        )

    def mouse(self, *path: tuple[float, float], button: str = "left") -> None:
        """Press at the first point, go through the others, let go at the last."""
        for kind, (x, y) in (("mousePressed", path[0]), *(("mouseMoved", p) for p in path[1:])):
            held = {"button": button, "buttons": 2 if button == "right" else 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=1, **held)
        x, y = path[-1]
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button=button, clickCount=1)
        self.settle()

    def click(self, selector: str) -> None:
        """Click the middle of an element, scrolled into sight."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.mouse((x, y))

    def wheel(self, x: float, y: float, by: float) -> None:
        """Turn the wheel at a place."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by)
        self.settle()

    def touch(self, *steps: list[tuple[float, float]]) -> None:
        """Fingers, each step a list of where they are."""
        for i, fingers in enumerate(steps):
            points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(fingers)]
            self.call("Input.dispatchTouchEvent", type="touchMove" if i else "touchStart", touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def key(self, key: str, modifiers: int = 0) -> None:
        """Press a key; modifiers 8 is Shift."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers, **more)
        self.settle()

    def picture(self, path: Path | None = None) -> np.ndarray:
        """What is seen, uint8 [h, w, 3]."""
        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(content)
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@contextmanager
def browser() -> Iterator[Page]:
    """A page in a browser of its own; `chromium()` must not be None."""
    program = chromium()
    assert program is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        session = None
        try:
            port = _port(Path(folder) / "DevToolsActivePort", process)
            session = loop.run_until_complete(_session())
            socket = loop.run_until_complete(_socket(session, port))
            yield Page(loop, socket)
        finally:
            if session is not None:
                loop.run_until_complete(session.close())
            loop.close()
            process.terminate()
            process.wait()


def _port(path: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + START_S
    while not path.exists() or not path.read_text().strip():
        assert process.poll() is None, "the browser has ended"
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.05)
    return int(path.read_text().split()[0])


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _socket(session: aiohttp.ClientSession, port: int) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [each for each in await answer.json() if each["type"] == "page"]
    return await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
