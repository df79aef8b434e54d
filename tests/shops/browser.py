"""A real headless Chromium, driven by its DevTools protocol: no driver but a web socket.

`pytest_plugins = ("shops.browser",)` brings `browser`; without a Chromium on the PATH the test is skipped.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from shops.service import stop
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--remote-debugging-port=0"),
)
WAIT_S = 30.0


class LeftError(AssertionError):
    """The page that was asked is no more."""


class Tab:
    """One page; errors and what the console says are kept in `said`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._count = socket, 0
        self.said: list[str] = []
        self.asked: list[str] = []  # every address that the page asked for
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """The result of a DevTools command."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=WAIT_S))
            if told.get("id") == self._count:
                if "navigated" in (told.get("error") or {}).get("message", ""):
                    raise LeftError(told)
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        method, params = told["method"], told["params"]
        if method == "Network.requestWillBeSent":
            self.asked.append(f"{params['request']['method']} {params['request']['url']}")
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(params)[:2000])

    def open(self, url: str) -> None:
        """Go there and wait until all of it is loaded."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        told = self._told(script)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def _told(self, script: str) -> Any:
        try:
            return self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        except LeftError as error:
            return {"result": {}, "exceptionDetails": error}

    def until(self, condition: str | Callable[[], Any]) -> Any:
        """Wait until an expression of the page, or a function, is true; its value.

        An expression that fails is not true yet: a page that is on its way has no body.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            found = (
                self._told(condition)["result"].get("value") if isinstance(condition, str) else condition()
            )
            if found:
                return found
            assert time.monotonic() < deadline, (condition, self.said[-5:])
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that fits, once it stands still on top."""
        box = self.until(
            f"(async () => {{ const e = document.querySelector({selector!r}); if (!e) return null;"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const middle = () => { const b = e.getBoundingClientRect();"
            "return b.width ? [b.x + b.width / 2, b.y + b.height / 2] : null; };"
            "const before = middle(); await new Promise((done) => setTimeout(done, 100));"
            "const now = middle(); if (!before || !now || before.join() !== now.join()) return null;"
            "const top = document.elementFromPoint(...now); return top && e.contains(top) ? now : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def picture(self, file: Path) -> None:
        """A screenshot of what a person sees, PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """An empty tab of a Chromium with a profile of its own."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    folder = tmp_path_factory.mktemp("chromium")
    command = [program, *QUIET, f"--user-data-dir={folder}", "--window-size=1200,900", "about:blank"]
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        port = _port(folder, process)
        tab = next(one for one in httpx.get(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        stop(process)


def _port(folder: Path, process: psutil.Popen) -> str:
    deadline, told = time.monotonic() + WAIT_S, folder / "DevToolsActivePort"
    while not (told.exists() and told.read_text().count("\n")):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"Chromium does not start: {(folder / 'log').read_text()[-500:]}")
        time.sleep(0.05)
    return told.read_text().split("\n")[0]
