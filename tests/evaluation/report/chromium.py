"""Headless Chromium over its own debugging pipe (the DevTools protocol), which needs no other package."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# It takes commands from descriptor 3 and answers on 4; a message ends in a zero byte.
START = """import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 5) for end in sys.argv[1:3]]
for place, end in zip((3, 4), ends):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])"""


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page. events: all that the protocol told of that page since it was opened last."""

    def __init__(self, program: str, profile: Path):
        self.read, theirs_out = os.pipe()
        theirs_in, self.write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(theirs_in), str(theirs_out)]
            + [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.count, self.held, self.session, self.events = 0, b"", "", []

    def __enter__(self) -> "Chromium":
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __exit__(self, *raised: object) -> None:
        os.close(self.write)
        os.close(self.read)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._receive()
            if told.get("id") == self.count:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self.events.append(told)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.held:
            more = os.read(self.read, 1 << 20)
            assert more, "the browser is gone"
            self.held += more
        told, _, self.held = self.held.partition(b"\0")
        return json.loads(told)

    def show(self, width: int, *, dark: bool = False, height: int = 800, scale: float = 1) -> None:
        """The size of the screen, in CSS pixels, and whether its owner likes it dark."""
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + 600
        while not self.named("Page.loadEventFired"):
            assert time.monotonic() < end, f"{page} did not load"
            self.evaluate("new Promise(go => setTimeout(go, 50))")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page, awaited where it is a promise, as if a person had asked for it."""
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """What the events of these names tell."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    @property
    def requests(self) -> list[str]:
        return [told["request"]["url"] for told in self.named("Network.requestWillBeSent")]

    @property
    def complaints(self) -> Sequence[dict[str, Any]]:
        """Whatever stands in the console: messages, errors that nobody caught, violations of the page's policy."""
        return self.named("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
