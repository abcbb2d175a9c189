"""A folder over HTTP, for pages that a browser does not open from files; and onnxruntime-web, where tests have it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""With these a page may have threads."""


class _Handler(SimpleHTTPRequestHandler):
    headers_of_all: tuple[tuple[str, str], ...] = ()

    def end_headers(self):
        for name, value in self.headers_of_all:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def served(folder, headers=None):
    """The address of a folder, as long as the context lasts."""
    handler = type("Handler", (_Handler,), {"headers_of_all": tuple((headers or {}).items())})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def onnxruntime_web():
    """The npm package that FASTCAM_ORT_WEB names, a folder or a .tgz; the test is skipped where there is none."""
    given = os.environ.get("FASTCAM_ORT_WEB", "")
    if not given:
        pytest.skip("FASTCAM_ORT_WEB names no onnxruntime-web (npm pack onnxruntime-web): no model ran in the browser")
    return Path(given)
