"""A Chromium without a screen, driven over its debugging pipe: opens pages, runs scripts in them, takes pictures."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0


def find() -> str | None:
    """The browser's command, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page. `requests` are the addresses it asked for, `errors` what its scripts and its policy complained of."""

    def __init__(self, out: int, back: int) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._out, self._back, self._number, self._session = out, back, 0, ""
        self._left = b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Open a page, and wait until it is there."""
        self._ask("Page.navigate", url=page.resolve().as_uri())
        self.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def screen(self, width: int, height: int, scheme: str, touch: bool) -> None:
        """Show the page on a screen of that size and of a colour scheme, "light" or "dark"."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=touch)
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise's when it is kept."""
        result = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.03)

    def picture(self, path: Path) -> None:
        """What the screen shows."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._hear()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._back, 1 << 20)
            assert more, "the browser ended"
            self._left += more
        line, self._left = self._left.split(b"\0", 1)
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        details = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(details["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(details["exceptionDetails"]))
            case "Log.entryAdded" if details["entry"]["level"] == "error":
                self.errors.append(details["entry"]["text"])


@contextmanager
def browser(command: str, profile: Path) -> Iterator[Tab]:
    """A running browser with a fresh profile in that folder; ended, with all its processes, on the way out."""
    (theirs, out), (back, ours) = os.pipe(), os.pipe()
    # The pipe's ends must be the browser's descriptors 3 and 4, whatever numbers they have here.
    launch = f'exec "$@" 3<&{theirs} 4>&{ours}'
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-pipe", "--disable-extensions", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["bash", "-c", launch, "bash", command, *options],
        pass_fds=(theirs, ours),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    os.close(ours)
    try:
        yield Tab(out, back)
    finally:
        os.close(out)
        os.close(back)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
