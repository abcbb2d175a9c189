"""The load generator counts what a server does, also one that fails, is slow, or cuts answers short."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fastcam_bench.serving import load


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers = staticmethod(lambda number, body: (200, b"{}"))

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.server.asked.append((time.perf_counter(), self.command, self.path, body, dict(self.headers)))
        status, content = self.server.answers(len(self.server.asked), body)
        if status == 0:  # half an answer
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
            return
        self.send_response(status)
        if self.path == "/chunked":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(
                b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content, content)) + b"0\r\n\r\n"
            )
            return
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def log_message(self, *arguments):
        pass


@contextmanager
def server(answers):
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads, listening.asked, listening.answers = True, [], answers
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield listening, f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def run(tmp_path, *arguments):
    file = tmp_path / "load.json"
    code = load.main([*arguments, "--json", str(file)])
    return code, json.loads(file.read_text())


def test_clients_ask_again_when_they_have_their_answer(tmp_path):
    (tmp_path / "picture").write_bytes(b"a picture")
    with server(lambda number, body: (time.sleep(0.02), (200, b"{}"))[1]) as (listening, at):
        code, report = run(tmp_path, f"{at}/v1/explain?a=b", "--clients", "2", "--seconds", "0.5", "--picture",
                           str(tmp_path / "picture"), "--header", "X-Key: 7")  # fmt: skip
    assert code == 0 and report["answers by status"] == {"200": len(listening.asked)} and report["errors"] == {}
    assert 4 <= report["requests"] <= 2 * 0.5 / 0.02 + 2, "never more than one request of each client at once"
    assert 20 <= report["latency ms"]["p50"] <= report["latency ms"]["p90"] <= report["latency ms"]["max"]
    _, method, path, body, headers = listening.asked[0]
    assert (method, path, body, headers["X-Key"]) == ("POST", "/v1/explain?a=b", b"a picture", "7")


def test_a_rate_goes_out_and_latency_begins_when_a_request_was_due(tmp_path):
    """The server stands still for a while at first: requests of that time have waited, though they were sent late."""
    lock = threading.Lock()

    def stands(number, body):
        with lock:
            time.sleep(0.4 if number == 1 else 0)
        return 200, b"{}"

    with server(stands) as (listening, at):
        code, report = run(tmp_path, at, "--rate", "50", "--seconds", "0.8")
    assert code == 0 and report["requests"] == 40 == len(listening.asked)
    assert report["latency ms"]["max"] >= 400
    assert sum(1 for asked in listening.asked if asked[0] < listening.asked[0][0] + 0.4) > 10, "sent all the same"


def test_errors_are_counted_by_kind_and_are_no_latencies(tmp_path):
    def answers(number, body):
        return {0: (200, b"{}"), 1: (429, b"later"), 2: (500, b"oh"), 3: (0, b"")}[number % 4]

    with server(answers) as (_, at):
        code, report = run(tmp_path, at, "--clients", "1", "--seconds", "0.3")
    assert code == 0 and {"200", "429", "500"} == set(report["answers by status"])
    assert report["errors"].keys() == {"answer cut short"}
    counted = report["answers by status"]
    assert report["requests"] == sum(counted.values()) + report["errors"]["answer cut short"]
    assert report["answered a second"] == pytest.approx(counted["200"] / report["seconds"])


def test_no_answer_at_all(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        code, report = run(
            tmp_path, f"http://127.0.0.1:{port}", "--clients", "1", "--seconds", "0.1", "--timeout", "0.2"
        )
        assert code == 1 and report["errors"] == {"no answer in time": 1} and report["latency ms"] == {}
    code, report = run(tmp_path, f"http://127.0.0.1:{port}", "--clients", "1", "--seconds", "0.1")
    assert code == 1 and set(report["errors"]) == {"connection refused"}


def test_answers_in_chunks_and_connections_that_were_closed(tmp_path):
    with server(lambda number, body: (200, b"chunk")) as (_, at):
        target = load.Target.of(f"{at}/chunked")

        async def twice():
            connection = load.Connection(target)
            first = await connection.ask()
            connection._streams[1].close()  # as where the server has closed it meanwhile
            connection._streams[0].feed_eof()
            second = await connection.ask()
            connection.close()
            return first, second

        import asyncio

        assert asyncio.run(twice()) == ((200, b"chunkchunk"),) * 2


def test_percentiles_are_values_that_were_measured():
    ranked = [float(i) for i in range(1, 101)]
    assert [load.percentile(ranked, part) for part in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert load.percentile([7.0], 99) == 7.0


def test_a_wrong_call_is_one_line(tmp_path, capsys):
    for arguments in (["ftp://x"], ["http://127.0.0.1:1/", "--picture", str(tmp_path / "missing")]):
        with pytest.raises(SystemExit) as error:
            load.main(arguments)
        assert error.value.code == 2
