"""A page in Chromium, without a window and without a network: scripts, keys and pictures by its debugging pipe."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
"""WebGPU by Chromium's own software, which needs no GPU."""
KEYS = {"/": ("/", "Slash", 191), "Enter": ("\r", "Enter", 13)}
PATIENCE = 300


class Browser:
    """Chromium with one page; a context manager, at whose end it is gone. ``flags`` are further ones of its own, as
    :data:`WEBGPU`."""

    def __init__(self, folder, size=(1200, 900), flags=()):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip(f"no browser here ({', '.join(NAMES)}): the page was not opened")
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        # the pipes' ends become 3 and 4 of the browser; none of them may be 3 or 4 before
        theirs, ours = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write))
        wrapper = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs} 4>&{ours}', program]
        arguments = [f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
        self._process = subprocess.Popen(
            [
                *wrapper,
                *(one for one in FLAGS if flags != WEBGPU or one != "--disable-gpu"),
                *flags,
                *arguments,
                "about:blank",
            ],
            pass_fds=(theirs, ours),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (read, write, theirs, ours):
            os.close(end)
        self._numbers, self._parts, self._messages, self._session = itertools.count(1), [], deque(), None
        self.events = []
        pages = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(PATIENCE)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **parameters):
        """A command of the DevTools protocol, and its answer."""
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        end = time.monotonic() + PATIENCE
        while not self._messages:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            *whole, rest = data.split(b"\0")
            self._parts.append(whole[0] if whole else rest)
            if whole:
                self._messages += [b"".join(self._parts), *whole[1:]]
                self._parts = [rest]
        return json.loads(self._messages.popleft())

    def open(self, path):
        """Load a file, and wait until it is there."""
        self._load("Page.navigate", url=path.resolve().as_uri())

    def reload(self):
        """Load the page again, and wait until it is there."""
        self._load("Page.reload")

    def _load(self, method, **parameters):
        self.events = []
        self.call(method, **parameters)
        loaded = any(one.get("method") == "Page.loadEventFired" for one in self.events)
        while not loaded:
            self.events.append(self._next())
            loaded = self.events[-1].get("method") == "Page.loadEventFired"

    def js(self, expression):
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"!!({expression})"):
            assert time.monotonic() < end, f"never true: {expression}"

    def key(self, name):
        """Press a key."""
        text, code, number = KEYS.get(name, ("", name, 0))
        more = {"text": text} if text else {}
        numbers = {"windowsVirtualKeyCode": number} if number else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, code=code, **more, **numbers)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, code=code, **numbers)

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        """What is seen, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def fetched(self):
        """The addresses of everything that was loaded, but the page itself and what it holds."""
        sent = [
            one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "file:", "blob:"))]

    def complaints(self):
        """Errors of scripts, and what the page's policy has refused."""
        of = [one for one in self.events if one.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
        return [json.dumps(one["params"])[:400] for one in of]
