"""Who has left gets no run: a request that waits behind another is taken back when its client closes the connection."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("grpc", reason="grpcio is not installed: nothing was served over gRPC")
import grpc

from fastcam.serving.batching import Batcher
from fastcam.serving.caller import CALLER, Caller
from fastcam.serving.errors import Left
from fastcam.serving.grpc.messages import MESSAGES
from fastcam.serving.grpc.server import GrpcServer
from fastcam.serving.limits import Limits

EXPLAIN = "/v1/explain"
PICTURE = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": PNGS[:1]}}
LEFT = {"http": '{route="/v1/explain",status="499"}', "grpc": '{route="grpc:ModelInfer",status="CANCELLED"}'}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


class Busy:
    """A server whose first run lasts until it is let go, and how many rows each of its runs had."""

    def __init__(self, served, http, port):
        self.http, self.runs = http, []
        self._begun, self._go = threading.Event(), threading.Event()
        self.channel = grpc.insecure_channel(f"localhost:{port}")
        explainer = served.repository.get().explainer
        steps_of = explainer.steps

        def slow_steps(options):
            steps = steps_of(options)

            def slow(batch, request):
                self.runs.append(len(batch.tensor))
                self._begun.set()
                assert self._go.wait(60)
                return steps.run(batch, request)

            return replace(steps, run=slow)

        explainer.steps = slow_steps
        self.first = threading.Thread(target=http.ask, args=(EXPLAIN, PNGS[0]))
        self.first.start()
        assert self._begun.wait(30)

    def go_on(self):
        self._go.set()
        self.first.join()

    def waits_for(self, line):
        until = time.monotonic() + 30
        while line not in (text := self.http.ask("/metrics")[2].decode()):
            assert time.monotonic() < until, [one for one in text.splitlines() if "fastcam_requests" in one]
            time.sleep(0.02)

    def infer(self):
        """A call over gRPC that is under way."""
        method = self.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            MESSAGES["ModelInferRequest"].SerializeToString,
            MESSAGES["ModelInferResponse"].FromString,
        )
        request = MESSAGES["ModelInferRequest"](model_name="tiny", inputs=[PICTURE])
        return method.future(request, timeout=60)


@contextmanager
def busy(path, **limits):
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    served = server(path, Limits(**limits), beside=[GrpcServer("127.0.0.1", 0, told=told).serving])
    with listening(served.app) as http:
        assert there.wait(60)
        found = Busy(served, http, ports[0])
        try:
            yield found
        finally:
            found.go_on()
            found.channel.close()


def sent(port, body=PNGS[0], more=b""):
    """A connection on which a request is under way, ``more`` of which does not come."""
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.sendall(
        f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + len(more)}\r\n\r\n".encode() + body
    )
    return made


@pytest.mark.parametrize("protocol", LEFT)
def test_what_waits_for_a_run_is_not_run(path, protocol):
    with busy(path) as found:
        if protocol == "http":
            waiting = [sent(found.http.port) for _ in range(5)]
        else:
            waiting = [found.infer() for _ in range(5)]
        found.waits_for("fastcam_requests_under_way 6.0")
        stays = found.infer()
        found.waits_for("fastcam_requests_under_way 7.0")
        for one in waiting:
            one.close() if protocol == "http" else one.cancel()
        found.waits_for(f"fastcam_requests_total{LEFT[protocol]} 5.0")
        found.waits_for("fastcam_requests_under_way 2.0")
        found.go_on()
        assert stays.result().outputs
        assert found.runs == [1, 1], "the run that had begun, and that of the one who stayed"


def test_who_leaves_does_not_wait_for_the_run_before_his():
    begun, go, runs, said = threading.Event(), threading.Event(), [], []

    def run(items):
        runs.append([*items])
        begun.set()
        assert go.wait(60)
        return items

    def ask(item, caller):
        CALLER.set(caller)
        try:
            said.append(batcher.ask(item, None, time.monotonic() + 60))
        except Left as error:
            said.append(str(error))

    batcher, leaving = Batcher(run, 8), Caller()
    threads = [threading.Thread(target=ask, args=(item, caller)) for item, caller in (("a", Caller()), ("b", leaving))]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    until = time.monotonic() + 30
    while not len(batcher):
        assert time.monotonic() < until
    leaving.leave()
    threads[1].join(30)
    assert said == ["the client has left"], "while the first run still lasts"
    go.set()
    threads[0].join(30)
    batcher.close()
    assert runs == [["a"]] and said[1:] == ["a"]


def test_half_a_body_is_no_defect(path, caplog):
    with busy(path) as found:
        sent(found.http.port, b"half", b"missing").close()
        found.waits_for('fastcam_requests_total{route="/v1/explain",status="499"} 1.0')
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_caller_tells_whoever_has_to_know_once_and_only_while_he_wants_to():
    caller, told = Caller(), []
    with caller.telling(lambda: told.append("early")):
        caller.check()
    with caller.telling(lambda: told.append("now")):
        caller.leave()
    assert told == ["now"]
    with pytest.raises(Left), caller.telling(lambda: told.append("late")):
        raise AssertionError("it has left")
