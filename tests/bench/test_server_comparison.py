"""Servers are compared by what they took, in turns; one that fails is not measured."""

from __future__ import annotations

import sys

import pytest

from fastcam_bench.report import servers as sections
from fastcam_bench.serving import processes

SPINS = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        until = time.thread_time() + float(sys.argv[2])
        while time.thread_time() < until:
            pass
        status = 500 if self.path == "/bad" else 200
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def spinning(seconds):
    """A server that computes so long for each request."""
    port = processes.free_port()
    return processes.served(["-c", SPINS, str(port), str(seconds)], port, "/")


def test_processor_time_is_that_of_the_server_and_a_dearer_one_takes_more():
    with spinning(0.001) as cheap, spinning(0.02) as dear:
        ask = processes.Ask("/")
        found = processes.compared({"cheap": (cheap, ask), "dear": (dear, ask)}, 1.0, 2)
    spent = {name: one["16 clients: processor ms a request"] for name, one in found.items()}
    assert spent["dear"] >= 19 and spent["cheap"] < spent["dear"] / 2
    assert found["dear"]["one client: p50 ms"] >= 20
    assert found["dear"]["16 clients: p50 ms"] <= found["dear"]["16 clients: p99 ms"]


def test_a_server_that_fails_is_not_measured():
    with spinning(0.0) as running:
        with pytest.raises(RuntimeError, match="500"):
            processes.saturated(running, processes.Ask("/bad"), 0.1)
        with pytest.raises(RuntimeError, match="500"):
            running.client(processes.Ask("/bad"))()


def test_a_report_says_its_command_without_folders_of_this_machine():
    given = ["--seconds", "6", "--packages", "/some/where", "--json", "/else/where", "--only", "resnet50"]
    assert processes.said("peers", given) == (
        "python -m fastcam_bench.serving.peers --seconds 6 --packages DIR --only resnet50"
    )


def test_a_server_that_does_not_start_says_so():
    with pytest.raises(RuntimeError, match="does not answer"), processes.served(["-c", "1"], 1, "/"):
        pass


def test_what_was_measured_on_a_busy_machine_is_said_to_be(monkeypatch):
    one = {
        "one client: p50 ms": 2.0,
        **dict.fromkeys(
            (f"16 clients: {what}" for what in ("processor ms a request", "answers a second", "p50 ms", "p99 ms")), 3.0
        ),
    }
    report = {
        "load": 0.3,
        "machine": {"cores": 2},
        "command": "c",
        "threads": 1,
        "batch": 8,
        "network": "N",
        "versions": {"a": "1", "b": "2"},
        "requests": {"health": {"a": one, "b": one}},
        "networks": {"mobilenet_v2": {"ours": one}},
    }
    monkeypatch.setattr(sections, "read", lambda name: report)
    assert "busy" not in sections.choice() + sections.peers() and "one client waits 2 and 2 ms" in sections.choice()
    assert "| MobileNetV2 | ours | 2.0 | 3.0 | 3.0 | 3.0 |" in sections.peers()
    report["load"] = 9.0
    assert "busy" in sections.choice() and "busy" in sections.peers() and "one client" not in sections.choice()
    assert "| MobileNetV2 | ours | 3.0 |" in sections.peers()


def test_the_peers_files_compile_without_the_peers():
    from fastcam_bench.serving.peers import SCRIPTS

    for file in SCRIPTS.glob("*.py"):
        compile(file.read_text(encoding="utf-8"), str(file), "exec")
    assert sys.modules.keys().isdisjoint({"litserve", "kserve"})
