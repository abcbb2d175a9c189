"""More connections than are taken: those with requests under way keep their places, and slow ones keep nobody out."""

from __future__ import annotations

import re
import resource
import socket
import threading
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from fastcam import FastcamError
from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file
from support.servers.served_verb import served

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("grpc", reason="grpcio is not installed: nothing was served over gRPC")
import grpc

from fastcam.serving.grpc.messages import MESSAGES
from fastcam.serving.grpc.server import GrpcServer
from fastcam.serving.limits import Limits
from fastcam.serving.processes import open_connections
from fastcam.serving.processes.open_connections import BoundedProtocol, Places, provide_files

MOST = 8
HEAD = b"POST /v1/explain HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(PNGS[0]) + PNGS[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture
def refused():
    return []


@pytest.fixture
def client(path, refused):
    places = Places(MOST, lambda: refused.append(1))
    with listening(server(path, Limits(seconds=20.0)).app, http=partial(BoundedProtocol, places)) as opened:
        yield opened


@pytest.fixture
def patient(monkeypatch):
    """However loaded this machine is, no body comes slowly."""
    monkeypatch.setattr(open_connections, "GRACE", 1e9)


@pytest.fixture
def connect(client):
    """Makes connections that are closed at the end."""
    with ExitStack() as stack:

        def made(*sent):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
            for part in sent:
                one.sendall(part)
            return one

        yield made


def status_of(connection):
    return int(connection.recv(65536).split(b" ", 2)[1])


def under_way(connect):
    """A request whose body has begun to come, which the server has seen."""
    one = connect(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(PNGS[0]))
    assert status_of(one) == 100
    one.sendall(PNGS[0][:20])
    return one


def test_slow_heads_keep_nobody_out_however_many_they_are(client, connect, refused):
    slow = [connect(b"" if number % 2 else HEAD) for number in range(5 * MOST)]
    assert [client.ask("/v1/explain", picture)[0] for picture in PNGS] == [200] * 4
    assert slow[0].recv(1) == b"", "the one that had waited longest"
    assert not refused


def test_connections_with_requests_keep_their_places_and_one_more_is_told(client, connect, refused, patient):
    inside = [under_way(connect) for _ in range(MOST)]
    for _ in range(3):
        status, headers, body = client.ask("/v1/explain", PNGS[0])
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert b"too many connections" in body
    assert len(refused) == 3
    inside[3].sendall(PNGS[0][20:])
    assert status_of(inside[3]) == 200
    assert client.ask("/v1/explain", PNGS[0])[0] == 200, "that place waited for a request, and was given away"
    assert inside[3].recv(1) == b""
    for one in (*inside[:3], *inside[4:]):
        one.sendall(PNGS[0][20:])
        assert status_of(one) == 200


def test_slow_bodies_keep_nobody_out_however_many_they_are(client, connect, refused, monkeypatch):
    """A byte now and then does not help them; who sends as fast as is asked for stays."""
    monkeypatch.setattr(open_connections, "GRACE", -1.0)
    slow = [under_way(connect) for _ in range(3 * MOST)]
    for one in slow[-3:]:
        one.sendall(PNGS[0][20:21])
    assert [client.ask("/v1/explain", picture)[0] for picture in PNGS] == [200] * 4
    assert slow[0].recv(1) == b"", "the one that was there first"
    assert not refused


def test_a_body_behind_a_request_that_is_under_way_does_not_cost_its_place(client, connect, monkeypatch):
    monkeypatch.setattr(open_connections, "GRACE", -1.0)
    one = connect(WHOLE + WHOLE[:-5])
    for _ in range(2 * MOST):
        connect()
    found = b""
    while b"HTTP/1.1 200" not in found:
        part = one.recv(65536)
        assert part, found
        found += part


def test_a_connection_that_leaves_leaves_its_place(client, connect):
    inside = [under_way(connect) for _ in range(MOST)]
    inside[0].close()
    assert client.ask("/v2/health/live")[0] == 200


def test_a_request_behind_another_is_under_way_too(client, connect):
    one = connect(WHOLE + WHOLE + WHOLE)
    for _ in range(2 * MOST):
        connect()
    found = b""
    while found.count(b"HTTP/1.1 200") < 3:
        part = one.recv(65536)
        assert part, found
        found += part


def test_a_refused_connection_that_says_nothing_is_closed_soon(client, connect, monkeypatch, patient):
    monkeypatch.setattr(open_connections, "LINGER", 0.2)
    inside = [under_way(connect) for _ in range(MOST)]
    assert connect().recv(1) == b""
    assert len(inside) == MOST


def test_those_that_wait_outside_have_a_bound(client, connect, monkeypatch, patient):
    monkeypatch.setattr(open_connections, "OUTSIDE", 2)
    inside = [under_way(connect) for _ in range(MOST)]
    outside = [connect() for _ in range(3)]
    with suppress(ConnectionResetError):
        assert outside[2].recv(1) == b""
    outside[1].sendall(WHOLE)
    assert status_of(outside[1]) == 503 and len(inside) == MOST


def test_the_verb_takes_the_bound_and_counts_who_was_refused(path):
    with served(path, "--max-connections", "1") as (_, client), ExitStack() as stack:
        one = stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        assert under_way(lambda *sent: one.sendall(b"".join(sent)) or one) is one
        assert client.ask("/v2/health/live")[0] == 503
        one.sendall(PNGS[0][20:])
        assert status_of(one) == 200
        text = client.ask("/metrics")[2].decode()
        assert re.search(r'requests_total{route="early",status="503"} 1.0', text)


def test_over_grpc(path):
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    served = server(path, Limits(connections=2), beside=[GrpcServer("127.0.0.1", 0, told=told).serving])
    options = [("grpc.use_local_subchannel_pool", 1)]

    def alive(channel):
        of = MESSAGES["ServerLiveRequest"], MESSAGES["ServerLiveResponse"]
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive", of[0].SerializeToString, of[1].FromString
        )
        return method(of[0](), timeout=20).live

    with listening(served.app), ExitStack() as stack:
        assert there.wait(60)
        inside = [grpc.insecure_channel(f"localhost:{ports[0]}", options) for _ in range(2)]
        for channel in inside:
            stack.enter_context(channel)
            assert alive(channel)
        with grpc.insecure_channel(f"localhost:{ports[0]}", options) as more:
            with pytest.raises(grpc.RpcError) as raised:
                alive(more)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert all(map(alive, inside))


def test_files_for_connections_are_asked_for_and_told_where_they_cannot_be_had(monkeypatch):
    limits, asked = [64, 1000], []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, both: asked.append(both))
    provide_files(400)
    assert asked == [(600, 1000)]
    with pytest.raises(FastcamError, match="801 connections need 1001 open files"):
        provide_files(801)
    limits[0] = resource.RLIM_INFINITY
    provide_files(10_000)
    assert len(asked) == 1
