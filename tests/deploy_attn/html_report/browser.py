"""A real Chromium without a window, spoken to over its DevTools pipe: what it logs, loads and draws."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # for root in a container; the page is local
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_LONGEST_MESSAGE = 1 << 20
_PATIENCE_S = 60

Message = dict[str, Any]


def chromium() -> str:
    """The path of Chromium. Fails the test where there is none: a page is checked in a real one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("chromium is missing, and pages are checked in a real one: apt-get install chromium")
    return found


class Browser:
    """One page of one Chromium. `events` are those of the page since it was opened."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self.events: list[Message] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        attached = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True}, None)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def open(self, file: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Shows a file in a window of a size, light or dark, and waits until all of it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.ask("Page.navigate", url=file.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def ask(self, method: str, /, **parameters: Any) -> Message:
        """A command to the page, and its answer."""
        return self._ask(method, parameters, self._session)

    def value(self, expression: str) -> Any:
        """What an expression in the page comes to."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def printed(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=False)["data"])

    def loaded(self) -> list[str]:
        """Addresses that the page asked for."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def said(self) -> list[Message]:
        """What went to the console: messages, errors, what the page's policy barred."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def _ask(self, method: str, parameters: Message, session: str | None) -> Message:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        content = json.dumps(message if session is None else {**message, "sessionId": session}).encode() + b"\0"
        while content:
            content = content[os.write(self._to, content) :]
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: Message = answer["result"]
                return result

    def _receive(self) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE_S)
            assert ready, f"Chromium has said nothing for {_PATIENCE_S} s"
            received = os.read(self._from, _LONGEST_MESSAGE)
            assert received, "Chromium has ended"
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """A Chromium whose profile lies in a folder; it ends with the block."""
    program = chromium()
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    shell = f'exec "$0" "$@" 3<&{commands_out} 4>&{answers_in}'
    command = ["/bin/bash", "-c", shell, program, *_OPTIONS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        command, pass_fds=(commands_out, answers_in), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        yield Browser(commands_in, answers_out)
    finally:
        os.close(commands_in)
        os.close(answers_out)
        process.terminate()
        process.wait(20)
