"""gRPC's health service, asked by the bytes of its published messages: grpc/health/v1/health.proto."""

from __future__ import annotations

import threading

import pytest

from support.servers.live_server import listening
from support.servers.served_model import server, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("grpc", reason="grpcio is not installed: nothing was served over gRPC")
import grpc

from fastcam.serving.grpc.server import GrpcServer

SERVING, NOT_SERVING, UNKNOWN_SERVICE = b"\x08\x01", b"\x08\x02", b"\x08\x03"
OWN = b"\x0a\x1e" + b"inference.GRPCInferenceService"
OTHER = b"\x0a\x05other"


@pytest.fixture
def served(tmp_path):
    """The server behind keys, and its channel."""
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    made = server(tiny_file(tmp_path), keys=("secret",), beside=[GrpcServer("127.0.0.1", 0, told=told).serving])
    with listening(made.app) as http:
        assert there.wait(60)
        with grpc.insecure_channel(f"localhost:{ports[0]}") as channel:
            yield made, channel, http


def test_check(served):
    made, channel, _ = served
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=20) == check(OWN, timeout=20) == SERVING
    with pytest.raises(grpc.RpcError) as raised:
        check(OTHER, timeout=20)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    made.repository.close()
    assert check(b"", timeout=20) == NOT_SERVING, "there are no models"


def test_watch_says_each_change_and_ends_with_the_server(served):
    made, channel, _ = served
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    own, other = watch(OWN, timeout=60), watch(OTHER, timeout=60)
    assert (next(own), next(other)) == (SERVING, UNKNOWN_SERVICE)
    made.service.drain()
    assert [*own] == [NOT_SERVING] and [*other] == []
