"""Clients that are slow, break off or lie about lengths: the others are served as if they were not there."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack

import pytest

from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
from fastcam.serving import http, service
from fastcam.serving.limits import Limits
from fastcam.serving.processes import slow_heads

HEAD = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(path):
    """Of a server that gives a request two seconds and takes two at once."""
    served = server(path, Limits(body=1 << 22, seconds=2.0, waiting=2))
    with listening(served.app, http=slow_heads.ImpatientProtocol) as opened:
        opened.ask("/v1/explain", PNGS[0])  # what is made at the first call
        yield opened


def opened(client, *sent):
    made = socket.create_connection(("127.0.0.1", client.port), timeout=20)
    for part in sent:
        made.sendall(part)
    return made


def answer_of(connection):
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def status_of(content):
    return int(content.split(b" ", 2)[1])


def answered(client):
    return client.ask("/v1/explain", PNGS[0])[0]


def test_many_slow_clients_take_no_place_from_others(client):
    """Half heads and half bodies, far more than requests that are taken at once."""
    with ExitStack() as stack:
        for number in range(60):
            half = b"" if number % 2 else b"Content-Length: 1000\r\n\r\nhalf"
            stack.enter_context(opened(client, HEAD + half))
        begun = time.monotonic()
        assert [answered(client) for _ in range(5)] == [200] * 5
        assert time.monotonic() - begun < 10
    assert answered(client) == 200


@pytest.mark.parametrize("head", [b"", b"GET /v2 HT", HEAD])
def test_a_head_that_does_not_come_is_not_waited_for(client, monkeypatch, head):
    monkeypatch.setattr(slow_heads, "SECONDS", 0.3)
    with opened(client, head) as slow:
        assert answer_of(slow) == b""


def test_a_second_head_on_a_connection_is_not_waited_for_either(client, monkeypatch):
    monkeypatch.setattr(slow_heads, "SECONDS", 0.3)
    with opened(client, b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n") as slow:
        assert b"fastcam" in slow.recv(65536)
        slow.sendall(b"GET /v2 HT")
        assert answer_of(slow) == b""


def test_half_a_body_is_answered_when_its_time_is_over_and_the_connection_closed(client):
    with opened(client, HEAD + b"Content-Length: 1000\r\n\r\nhalf") as slow:
        assert status_of(answer_of(slow)) == 504
    assert answered(client) == 200


def test_a_body_that_comes_too_slowly_is_not_waited_for_as_long_as_a_request_may_take(path, monkeypatch):
    """Mod_reqtimeout's rule: some seconds, and more for bytes that have come."""
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    with listening(server(path, Limits(seconds=60.0)).app, http=slow_heads.ImpatientProtocol) as client:
        begun = time.monotonic()
        with opened(client, HEAD + b"Content-Length: 1000\r\n\r\nhalf") as slow:
            answer = answer_of(slow)
        assert status_of(answer) == 504 and b"send it faster" in answer and time.monotonic() - begun < 30
        with opened(client, HEAD + b"Content-Length: %d\r\n\r\n" % (60_000 + len(PNGS[0]))) as fast:
            fast.sendall(bytes(60_000))  # which are worth many seconds
            time.sleep(1.0)
            fast.sendall(PNGS[0])
            assert status_of(fast.recv(65536)) == 400, "no picture, but all of it was read"


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(slow_heads, "SECONDS", 0.3)
    with opened(client, HEAD + b"Content-Length: 9000000\r\n\r\nhalf") as slow:
        assert status_of(answer_of(slow)) == 413


LENGTHS = {
    "one byte too few": (len(PNGS[0]) - 1, {200, 400}),
    "far too few": (10, {400}),
    "none": (0, {400}),
    "negative": (-5, {400}),
    "a word": ("many", {400}),
    "two that differ": (f"{len(PNGS[0])}\r\nContent-Length: 5", {400}),
    "more than is taken": (1 << 40, {413}),
    "more digits than a number has": ("9" * 5000, {400, 413}),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_wrong_length(client, kind, monkeypatch):
    length, allowed = LENGTHS[kind]
    monkeypatch.setattr(slow_heads, "SECONDS", 0.3)
    with opened(client, HEAD + f"Content-Length: {length}\r\n\r\n".encode() + PNGS[0]) as wrong:
        wrong.shutdown(socket.SHUT_WR)
        assert status_of(answer_of(wrong)) in allowed
    assert answered(client) == 200


def test_what_is_no_http_gets_its_line_in_json(client):
    with opened(client, b"hello\r\n\r\n") as wrong:
        head, _, body = answer_of(wrong).partition(b"\r\n\r\n")
    assert status_of(head) == 400 and f"content-length: {len(body)}".encode() in head
    assert "HTTP" in json.loads(body)["error"]


def test_a_chunk_that_lies_about_its_length(client):
    with opened(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhalf") as wrong:
        assert status_of(answer_of(wrong)) == 400
    assert answered(client) == 200


def test_clients_that_leave_free_their_places(client):
    for _ in range(20):
        with opened(client, HEAD + f"Content-Length: {len(PNGS[0])}\r\n\r\n".encode(), PNGS[0][:50]):
            pass
        with opened(client, HEAD + f"Content-Length: {len(PNGS[0])}\r\n\r\n".encode(), PNGS[0]):
            pass
    until = time.monotonic() + 20
    while answered(client) != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert answered(client) == 200
    assert b"fastcam_requests_under_way 0.0" in client.ask("/metrics")[2]


def test_large_bodies_on_their_way_have_a_bound_of_memory(client, monkeypatch):
    monkeypatch.setattr(service, "BODIES", 1 << 20)
    monkeypatch.setattr(service, "SMALL", 1 << 16)
    large = HEAD + f"Content-Length: {1 << 21}\r\n\r\n".encode()
    with opened(client, large, bytes(900_000)) as first, opened(client, large, bytes(900_000)) as second:
        assert answered(client) == 200, "small ones come through"
        contents = [one.recv(65536) for one in (first, second)]
    assert {status_of(content) for content in contents} == {429, 504}, "one of them found no room"
    assert any(b"too many large bodies" in content for content in contents)
