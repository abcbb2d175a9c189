"""A server that is full says so at once, keeps the connection, and takes no answer from a client that still sends."""

from __future__ import annotations

import re
import socket
import time
from functools import partial
from itertools import chain, repeat
from types import SimpleNamespace

import pytest

from fastcam.serving.limits import Limits
from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file
from support.servers.served_verb import served

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
from fastcam.serving.processes.early_refusals import BusyProtocol, whole_post
from fastcam.serving.processes.open_connections import Places

POST = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
WHOLE = POST % len(PNGS[0]) + b"\r\n" + PNGS[0]


class Door:
    """In the place of a service: it says whether it is full each time that it is asked, at the end always the same."""

    def __init__(self):
        self._says, self.refused = iter(()), 0

    def says(self, *words):
        self._says = chain(words, repeat(words[-1]))

    @property
    def full(self):
        return next(self._says)

    def refused_early(self):
        self.refused += 1

    def gather(self, loop):
        pass


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def door():
    return Door()


@pytest.fixture(scope="module")
def client(path, door):
    with listening(server(path).app, http=partial(BusyProtocol, door, Places(100))) as opened:
        yield opened


@pytest.fixture
def connection(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as made:
        yield made


def answer(connection):
    """Status, head and body of the next answer on a connection."""
    file = connection.makefile("rb", buffering=0)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += file.read(1)
    length, body = int(re.search(rb"content-length: (\d+)", head)[1]), b""
    while len(body) < length:
        body += file.read(length - len(body))
    return int(head.split(b" ", 2)[1]), head, body


def test_a_refusal_comes_before_the_body_and_leaves_the_connection_open(connection, door):
    door.says(True, True, False)  # before the parser, and behind the head
    before = door.refused
    connection.sendall(POST % 1000 + b"\r\n" + bytes(500))
    status, head, body = answer(connection)
    assert (status, body[:9]) == (429, b'{"error":') and b"retry-after: 1\r\n" in head
    connection.sendall(bytes(500) + WHOLE)
    assert answer(connection)[0] == 200 and door.refused == before + 1


def test_requests_that_are_there_as_a_whole_are_refused_one_by_one(connection, door):
    door.says(True)
    before = door.refused
    connection.sendall(WHOLE + WHOLE + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [answer(connection)[0] for _ in range(3)] == [429, 429, 200] and door.refused == before + 2
    door.says(False)
    connection.sendall(WHOLE)
    assert answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nPOST\r\n0\r\n\r\n"),
        (b"Expect: 100-continue\r\nContent-Length: 4\r\n", b"POST"),
        (b"Content-Length: 0\r\n", b""),
        (b"X-Content-Length: 100\r\nContent-Length: 4\r\n", b"POST"),
        (b"X: " + b"x" * 9000 + b"\r\nContent-Length: 4\r\n", b"POST"),
    ],
)
def test_behind_a_refused_request_the_next_one_begins_where_it_does(connection, door, head, body):
    door.says(True)
    request = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + body
    connection.sendall(request + request + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [answer(connection)[0] for _ in range(3)] == [429, 429, 200]


def test_what_is_plainly_a_whole_post():
    assert whole_post(WHOLE) == whole_post(WHOLE + WHOLE) == len(WHOLE)
    start = b"POST / HTTP/1.1\r\n"
    assert whole_post(start + b"CONTENT-LENGTH:\t 2 \r\n\r\n{}") == 0, "a tab is left to the parser"
    assert whole_post(start + b"content-LENGTH:2 \r\n\r\n{}!") == len(start) + 23
    for said in (
        b"", b"Content-Length: 3\r\n", b"Content-Length: +2\r\n", b"Content-Length : 2\r\n", b"Content-Length:\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n", b"Content-Length: 2\r\nConnection: close\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding : chunked\r\n", b"X: 1\nContent-Length: 2\r\n",
        b"Content-Length: 1e9\r\n",
    ):  # fmt: skip
        assert whole_post(start + said + b"\r\n{}") == 0, said
    for data in (b"", b"POST ", WHOLE[:-1], b"GET" + WHOLE[4:], WHOLE.replace(b"1.1", b"1.0")):
        assert whole_post(data) == 0, data[:40]


def test_a_full_server_still_says_how_it_is(connection, door):
    door.says(True)
    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(connection)[0] == 200


def test_a_client_that_wants_the_connection_closed_may_send_all_of_its_body(connection, door):
    """To close while bytes of it come would reset the connection, and the answer would be lost."""
    door.says(True)
    size = 4 << 20
    connection.sendall(POST % size + b"Connection: close\r\n\r\n")
    for _ in range(4):
        connection.sendall(bytes(size // 4))
    status, head, _ = answer(connection)
    assert status == 429 and b"connection: close\r\n" in head
    assert connection.recv(1) == b""


def test_a_request_behind_another_on_the_same_connection_waits_for_its_turn(connection, door):
    door.says(False, False, True)
    connection.sendall(WHOLE + WHOLE)
    assert [answer(connection)[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("took", "under_way", "slept"),
    [(0.5, 1, [0.01]), (0.2, 1, [0.004]), (60.0, 1, [0.01]), (0.04, 1, []), (0.0, 1, []), (0.5, 0, [])],
)
def test_a_full_server_looks_away_for_a_fiftieth_of_an_answers_time(monkeypatch, took, under_way, slept):
    """Once for all that is refused meanwhile; not where there is room again."""
    from fastcam.serving import service
    from fastcam.serving.watching.metrics import Metrics

    made = service.Service(SimpleNamespace(models={}), Limits(waiting=1), Metrics())
    made._took, made._under_way, soon, naps = took, under_way, [], []
    monkeypatch.setattr(service.time, "sleep", naps.append)
    loop = SimpleNamespace(call_soon=lambda call, *given: soon.append(partial(call, *given)))
    for _ in range(2):
        for _ in range(3):
            made.gather(loop)
        for call in soon:
            call()
        soon.clear()
    assert naps == pytest.approx(2 * slept)


def test_a_service_knows_how_long_its_answers_take():
    import asyncio

    from fastcam.serving import service
    from fastcam.serving.watching.metrics import Metrics

    made = service.Service(SimpleNamespace(models={}), Limits(), Metrics())

    async def thirty():
        for _ in range(30):
            await made.work(time.sleep, 0.01)

    asyncio.run(thirty())
    assert 0.009 < made._took < 1.0


def test_the_verb_refuses_so_and_counts_it(path):
    from fastcam_bench.serving.flood import Flood
    from fastcam_bench.serving.load import Target

    with served(path, "--max-waiting", "1") as (_, client):
        target = Target.of(f"http://127.0.0.1:{client.port}/v1/explain", PNGS[0])
        load = Flood(target).by_clients(8, 1.0)
        assert load.statuses[200] and load.statuses[429] and not load.errors
        text = client.ask("/metrics")[2].decode()
    counted = float(re.search(r'requests_total{route="early",status="429"} (\S+)', text)[1])
    assert 0 < counted <= load.statuses[429]


def test_a_client_that_reads_no_refusal_is_cut_off(client, door):
    door.says(True)
    asked = 100 * (POST % 0 + b"\r\n")
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.settimeout(20)
        made.connect(("127.0.0.1", client.port))
        with pytest.raises(ConnectionError):
            for _ in range(2000):
                made.sendall(asked)
