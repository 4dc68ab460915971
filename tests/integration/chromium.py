"""Chromium without a screen, by its DevTools protocol over a pair of pipes.

Source: https://chromedevtools.github.io/devtools-protocol/, and --remote-debugging-pipe, by which
it reads commands from descriptor 3 and writes to 4, JSON with a NUL behind each.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from .processes import WITH_US

__all__ = ["Browser", "Seen"]

_LIMIT = 40.0
"""Seconds that it may take to start, and for each answer."""


@attrs.frozen
class Seen:
    """A page as it was shown.

    ``requests`` are all addresses that were asked for, ``complaints`` what the console has, and
    ``overflow`` by how many pixels the page is wider than its window. ``text`` is what can be read.
    """

    picture: bytes
    requests: list[str]
    complaints: list[str]
    overflow: int
    text: str


class Browser:
    """Blocking, for a thread; ends with the ``with`` block. ``directory`` is for its own files."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise AssertionError("chromium not found; install it with: apt-get install chromium")
        theirs_in, self._commands = os.pipe()
        self._answers, theirs_out = os.pipe()
        options = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb"),
            *("--disable-background-networking", "--disable-component-update"),
            *(f"--user-data-dir={directory}", "--remote-debugging-pipe", "about:blank"),
        ]
        # The shell moves the pipes to where they are looked for, lowest first.
        move = 'exec 3<&"$0" 4>&"$1" && shift && exec "$@"'
        command = ["bash", "-c", move, str(theirs_in), str(theirs_out), *WITH_US, program, *options]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._received = b""
        self._events: list[dict[str, Any]] = []
        self._number = 0
        self._page = ""

    def __enter__(self) -> Browser:
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
            self._page = attached["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                self._ask(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and all the processes that it has started."""
        os.close(self._commands)
        os.close(self._answers)
        os.killpg(self._process.pid, 9)
        self._process.wait()

    def look(self, address: str, width: int, height: int, scheme: str = "light") -> Seen:
        """Open a page in a window of that size; the picture is of the whole page."""
        self._events.clear()
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._ask("Emulation.setEmulatedMedia", features=[feature])
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        navigated = self._ask("Page.navigate", url=address)
        assert "errorText" not in navigated, navigated
        self._wait_for("Page.loadEventFired")
        overflow = self._evaluate("document.documentElement.scrollWidth - innerWidth")
        text = self._evaluate("document.body.innerText")
        picture = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        return Seen(
            picture=base64.b64decode(picture),
            requests=[
                each["params"]["request"]["url"]
                for each in self._events
                if each["method"] == "Network.requestWillBeSent"
            ],
            complaints=[
                json.dumps(each["params"])
                for each in self._events
                if each["method"]
                in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
            ],
            overflow=overflow,
            text=text,
        )

    def _evaluate(self, expression: str) -> Any:
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"]["value"]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._page:
            command["sessionId"] = self._page
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + _LIMIT
        while (message := self._next(deadline)).get("id") != self._number:
            if "method" in message:
                self._events.append(message)
        assert "error" not in message, (method, message)
        answer: dict[str, Any] = message["result"]
        return answer

    def _wait_for(self, event: str) -> None:
        deadline = time.monotonic() + _LIMIT
        while not any(each["method"] == event for each in self._events):
            self._events.append({"method": "", **self._next(deadline)})

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            piece = os.read(self._answers, 65536) if ready else b""
            if not piece:
                raise AssertionError("chromium does not answer")
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told
