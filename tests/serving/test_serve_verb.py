"""``fastcam serve`` as its users start it and end it."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time

import cv2
import pytest

from fastcam import FastcamError
from fastcam.cli import serve
from support.models.contract_model import noise, random_model
from support.servers.served_verb import served

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
PNG = cv2.imencode(".png", noise(40, 40, seed=1))[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "tiny.cam.onnx").write_bytes(random_model().file())
    return folder


def test_it_answers_a_slow_client_harms_nobody_and_sigterm_ends_it(folder):
    with served(folder, "--timeout", "2") as (process, client):
        slow = socket.create_connection(("127.0.0.1", client.port))
        slow.sendall(b"POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        silent = socket.create_connection(("127.0.0.1", client.port))
        silent.sendall(b"GET /v2 HT")
        status, _, _ = client.ask("/v1/explain", PNG)
        assert status == 200
        slow.settimeout(20)
        assert b" 504 " in slow.recv(1000).split(b"\r\n")[0], "half a body is not waited for"
        slow.close()
        silent.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_request_that_is_under_way_is_answered_before_the_end(folder):
    with served(folder) as (process, client):
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        connection.putrequest("POST", "/v1/explain")
        connection.putheader("Content-Length", str(len(PNG)))
        connection.endheaders()
        connection.send(PNG[:100])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.send(PNG[100:])
        assert connection.getresponse().status == 200
        connection.close()
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_grpc_listens_beside_http_and_ends_with_it(folder):
    pytest.importorskip("tritonclient.grpc", reason="no tritonclient here: nothing was asked over gRPC")
    import tritonclient.grpc as grpcclient

    with served(folder, "--grpc-port", "0") as (process, client):
        at = next(line.split()[-1] for line in client.lines if line.startswith("listening for gRPC at"))
        with grpcclient.InferenceServerClient(at) as opened:
            assert opened.is_server_ready() and opened.is_model_ready("tiny")
            assert client.ask("/v1/explain", PNG)[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_a_wrong_call_gets_one_line(folder, tmp_path):
    (tmp_path / "bad.cam.onnx").write_bytes(b"no model")
    for source, options, said in (
        (folder, ["--host", "203.0.113.7"], "cannot listen"),
        (folder, ["--host", "203.0.113.7", "--grpc-port", "0"], "--grpc-port"),
        (tmp_path / "bad.cam.onnx", [], "bad.cam.onnx"),
    ):
        command = [sys.executable, "-m", "fastcam", "serve", str(source), "--port", "0", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("serving ")]
        assert done.returncode == 2 and len(lines) == 1 and said in lines[0]


def test_keys_and_certificates_that_are_none_are_refused(tmp_path):
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(FastcamError, match="no key in it"):
        serve._keys(tmp_path / "empty")
    with pytest.raises(FastcamError, match="give them together"):
        serve._tls(tmp_path / "empty", None, None)
    with pytest.raises(FastcamError, match="no such file"):
        serve._tls(tmp_path / "missing.pem", tmp_path / "empty", None)
    with pytest.raises(FastcamError, match="PEM files that fit"):
        serve._tls(tmp_path / "empty", tmp_path / "empty", None)
