"""Several processes: one that is killed harms nobody but those whose request it had, and is replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import pytest

from fastcam import Explainer
from support.servers.served_model import LABELS, PICTURES, PNGS, tiny_file
from support.servers.served_verb import served

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: no process was killed")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


def workers_of(process):
    """Numbers of the processes that answer: those of the parent that run its worker function."""
    numbers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(one) for one in numbers if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()}


class Answering:
    """Numbers of the processes that have said that they answer."""

    def __init__(self, process, lines):
        self.numbers = set()
        threading.Thread(target=self._read, args=(chain(lines, process.stderr),), daemon=True).start()

    def _read(self, lines):
        with contextlib.suppress(ValueError):  # closed at the end
            for line in lines:
                if line.startswith("process ") and line.endswith(" answers\n"):
                    self.numbers.add(int(line.split()[1]))


def alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def soon(true, seconds=60):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def test_a_killed_worker_is_replaced_and_sigterm_ends_all(path):
    with served(path, "--workers", "2", "--threads", "1") as (process, client):
        assert soon(lambda: len(workers_of(process)) == 2)
        before = workers_of(process)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        assert soon(lambda: len(workers_of(process) - {killed}) == 2)
        assert all(client.ask("/v1/explain", PNGS[0])[0] == 200 for _ in range(8))
        text = client.ask("/metrics")[2].decode()
        assert 'fastcam_requests_total{route="/v1/explain",status="200"} 8.0' in text, "all processes' counts"
        mine = workers_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert not any(map(alive, mine))


def test_workers_share_the_port_of_grpc(path):
    pytest.importorskip("tritonclient.grpc", reason="no tritonclient here: nothing was asked over gRPC")
    import tritonclient.grpc as grpcclient
    from tritonclient.utils import InferenceServerException

    with served(path, "--workers", "2", "--threads", "1", "--grpc-port", "0") as (process, client):
        at = next(line.split()[-1] for line in client.lines if line.startswith("listening for gRPC at"))
        answering = Answering(process, client.lines)
        assert soon(lambda: len(answering.numbers) == 2)
        os.kill(min(answering.numbers), signal.SIGKILL)

        def answers():
            with (
                contextlib.suppress(InferenceServerException),  # of the moment in which its socket closes
                grpcclient.InferenceServerClient(at) as opened,
            ):
                return opened.is_server_ready() and opened.is_model_ready("tiny")

        assert soon(answers, 10)


def test_workers_do_not_outlive_a_parent_that_is_killed(path):
    with served(path, "--workers", "2", "--threads", "1") as (process, _):
        assert soon(lambda: len(workers_of(process)) == 2)
        mine = workers_of(process)
        process.kill()
        process.wait()
        assert soon(lambda: not any(map(alive, mine)), 30)


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path):
    bad = tmp_path / "bad.cam.onnx"
    bad.write_bytes(b"no model")
    command = [sys.executable, "-m", "fastcam", "serve", str(bad), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "bad.cam.onnx" in lines[0]


@pytest.mark.slow
def test_kill_9_under_load_gives_no_wrong_answer_and_service_is_back_within_two_seconds(path):
    """Eight clients ask without a pause while workers are killed five times."""
    explainer = Explainer(path)
    wanted = {
        (i, label): explainer(PICTURES[i], [label]).to_dict()["images"][0]["targets"][0]
        for i in range(4)
        for label in LABELS
    }
    answered, lost, wrong, stop = [], [], [], threading.Event()

    def ask(number):
        i, label, connection = number % 4, LABELS[number % 5], None
        while not stop.is_set():
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
                connection.request("POST", f"/v1/explain?targets={label}", PNGS[i])
                answer = connection.getresponse()
                content = json.loads(answer.read())
                right = answer.status == 200 and content["targets"][0] == pytest.approx(wanted[i, label], rel=1e-5)
                (answered if right else wrong).append(time.monotonic() if right else content)
            except (OSError, http.client.HTTPException):
                lost.append(time.monotonic())
                connection = None

    with served(path, "--workers", "2", "--threads", "1") as (process, client):
        answering = Answering(process, client.lines)
        ready = lambda: workers_of(process) & answering.numbers  # noqa: E731
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        pauses = []
        for _ in range(5):
            time.sleep(1.5)
            assert soon(lambda: len(ready()) == 2, 120)
            killed = min(ready())
            os.kill(killed, signal.SIGKILL)
            at = time.monotonic()
            assert soon(lambda at=at: answered and answered[-1] > at, 30)
            pauses.append(next(one for one in list(answered) if one > at) - at)
            answering.numbers.discard(killed)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong[:3]
    assert max(pauses) < 2.0, pauses
    assert len(lost) <= 8 * 5, "only requests that the killed process had"
    assert len(answered) > 50
