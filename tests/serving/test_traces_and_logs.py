"""Where a request's time went, for OpenTelemetry, and lines of JSON; nothing of a picture is in either."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from fastcam import FastcamError
from fastcam.cli import serve
from fastcam.serving.watching import logs
from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture
def exported():
    """A provider of OpenTelemetry that keeps its spans, and those."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: nothing was traced")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.fixture
def traced(path, exported):
    """A server, its client, and what it has traced."""
    from fastcam.serving.watching.tracing import OpenTelemetry

    provider, exporter = exported
    served = server(path, spans=OpenTelemetry(provider))
    with listening(served.app) as client:
        yield served, client, exporter


def by_name(exporter):
    """Spans by name, when all of a request are over."""
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_and_its_steps(traced):
    _, client, exporter = traced
    status, _, _ = client.ask("/v1/explain?targets=ship", PNGS[0], {"traceparent": PARENT, "accept": "image/png"})
    assert status == 200
    spans = by_name(exporter)
    assert set(spans) == {"POST /v1/explain", "decode", "queue", "run", "draw"}
    whole = spans["POST /v1/explain"]
    assert format(whole.context.trace_id, "032x") == TRACE and format(whole.parent.span_id, "016x") == PARENT[36:52]
    assert whole.attributes["http.response.status_code"] == 200 and whole.attributes["http.route"] == "/v1/explain"
    order = [spans[name] for name in ("decode", "queue", "run", "draw")]
    for span in order:
        assert span.parent.span_id == whole.context.span_id and span.context.trace_id == whole.context.trace_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    for one, other in pairwise(order):
        assert one.end_time <= other.start_time
    said = json.dumps([[span.name, dict(span.attributes)] for span in exporter.get_finished_spans()])
    assert "ship" not in said and "targets" not in said


def test_pictures_of_a_request_and_requests_of_others_are_told_apart(traced):
    _, client, exporter = traced
    body = {"instances": [{"b64": base64.b64encode(one).decode()} for one in PNGS[:3]]}
    ask = lambda: client.json("/v1/models/tiny:predict", body)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finished = exporter.get_finished_spans()
    for whole in [span for span in finished if span.name.startswith("POST")]:
        mine = [span.name for span in finished if span.parent and span.parent.span_id == whole.context.span_id]
        assert sorted(mine) == ["decode"] * 3 + ["queue"] * 3 + ["run"] * 3


def test_what_fails_is_marked(traced):
    from opentelemetry.trace import StatusCode

    served, client, exporter = traced
    assert client.ask("/v1/explain", b"no picture")[0] == 400
    assert by_name(exporter)["POST /v1/explain"].status.status_code is StatusCode.UNSET, "the client's own fault"
    served.repository.get().explainer.steps = None
    assert client.ask("/v1/explain?method=hirescam", PNGS[0])[0] == 500
    assert exporter.get_finished_spans()[-1].status.status_code is StatusCode.ERROR


def test_without_packages_one_line_says_what_to_do(monkeypatch):
    from fastcam.serving.watching.tracing import OpenTelemetry

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(FastcamError, match=r"pip install fastcam\[serve,tracing\]"):
        OpenTelemetry()


def test_a_server_loads_no_opentelemetry_unless_it_traces(path):
    program = "import sys, fastcam.serving.http, fastcam.serving.grpc.server, fastcam.serving.watching.tracing;"
    program += "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'grpc'))]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class Lines(logging.Handler):
    """Records as the server's lines of JSON."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.setFormatter(logs.JsonLines())

    def emit(self, record):
        self.found.append(json.loads(self.format(record)))


@pytest.fixture
def lines():
    handler, logger = Lines(), logging.getLogger("fastcam.serving")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.found
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_each_request_is_a_line_without_its_picture(path, lines):
    served = server(path)
    with listening(served.app) as client:
        client.ask("/v1/explain?targets=ship", PNGS[0])
        client.ask("/v1/explain?targets=unicorn", PNGS[0])
        served.repository.get().explainer.steps = None
        client.ask("/v1/explain?method=hirescam", PNGS[0])
    asked = [line for line in lines if line["logger"] == "fastcam.serving.access"]
    assert [(line["route"], line["status"]) for line in asked] == [("/v1/explain", code) for code in (200, 400, 500)]
    assert all(0 < line["seconds"] < 60 and line["level"] == "info" for line in asked)
    failed = next(line for line in lines if line["level"] == "error")
    assert "Traceback" in failed["exception"]
    assert "ship" not in json.dumps(lines) and "unicorn" not in json.dumps(lines)


def test_a_trace_and_its_lines_find_each_other(traced, lines):
    _, client, _ = traced
    client.ask("/v1/explain", PNGS[0], {"traceparent": PARENT})
    assert [line["trace"] for line in lines if "trace" in line] == [TRACE]


def test_the_verb_writes_lines_of_json_alone(path):
    command = [sys.executable, "-m", "fastcam", "serve", str(path), "--port", "0", "--log", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = []
        while not found or "listening" not in found[-1]["message"]:
            found.append(json.loads(process.stderr.readline()))
        assert {line["level"] for line in found} == {"info"} and found[0]["message"].startswith("serving tiny")
        assert found[0]["time"].endswith("Z")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_another_form_is_refused():
    with pytest.raises(FastcamError, match="text or json"):
        serve._line_printer("xml")
