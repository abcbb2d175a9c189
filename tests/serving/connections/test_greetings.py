"""TLS: who does not end the greeting has a place among the connections, and not for long."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from support.servers.certificates import of_localhost
from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
from fastcam.serving.limits import Limits
from fastcam.serving.processes import greetings
from fastcam.serving.processes.greetings import TlsServer
from fastcam.serving.processes.open_connections import BoundedProtocol, Places

MOST = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return tiny_file(folder), *of_localhost(folder)


@pytest.fixture(params=["asyncio", "uvloop"])
def port(files, request):
    """Of a server that takes four connections."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed: its TLS was not tried")
    path, key, pem = files
    places = Places(MOST)
    how = {"http": partial(BoundedProtocol, places), "loop": request.param, "ssl_keyfile": key, "ssl_certfile": pem}
    with listening(server(path, Limits()).app, partial(TlsServer, places=places), **how) as client:
        yield client.port


@pytest.fixture
def ask(files, port):
    """A request over TLS: its status."""

    def asked(path="/v1/explain", body=PNGS[0]):
        context = ssl.create_default_context(cafile=files[2])
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
        try:
            connection.request("POST" if body else "GET", path, body)
            return connection.getresponse().status
        finally:
            connection.close()

    return asked


def silent(stack, port, sent=b""):
    """A client that begins TLS, perhaps, and says no more."""
    one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
    one.sendall(sent)
    return one


def test_requests_over_tls(ask):
    assert [ask(), ask("/v2/health/live", None), ask("/v1/explain", b"no picture")] == [200, 200, 400]


def test_greetings_that_do_not_end_keep_nobody_out_however_many_they_are(port, ask):
    with ExitStack() as stack:
        slow = [silent(stack, port, b"\x16\x03\x01" if number % 2 else b"") for number in range(5 * MOST)]
        assert [ask() for _ in range(3)] == [200] * 3
        with suppress(ConnectionResetError):
            assert slow[0].recv(1) == b"", "the one that had waited longest"


def test_a_greeting_that_does_not_end_is_not_waited_for(port, ask, monkeypatch):
    monkeypatch.setattr(greetings, "SECONDS", 0.3)
    with ExitStack() as stack:
        begun = time.monotonic()
        with suppress(ConnectionResetError):
            assert silent(stack, port, b"\x16\x03\x01").recv(1) == b""
        assert time.monotonic() - begun < 10
    assert ask() == 200


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", bytes(500), b"\x16\x03\x01\x00\x02\x01\x00"], ids=["http", "zeros", "half"]
)
def test_what_is_no_greeting_harms_nobody(port, ask, sent):
    with ExitStack() as stack:
        for _ in range(2 * MOST):
            one = silent(stack, port, sent)
            one.shutdown(socket.SHUT_WR)
    assert ask() == 200
