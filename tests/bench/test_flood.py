"""The cheap load counts what a server says that it has answered, and why there is no answer."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from fastcam_bench.serving.flood import Flood
from fastcam_bench.serving.load import Target

BODY = bytes(100_000)
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"


@contextmanager
def server(answer):
    """Its port, and the list of requests that it has read whole; ``answer(number)`` is sent, None closes."""
    asked, listener = [], socket.create_server(("127.0.0.1", 0))

    def talk(connection):
        with connection, connection.makefile("rb") as file:
            while head := file.readline():
                while (line := file.readline()) != b"\r\n":
                    head += line
                asked.append(len(file.read(len(BODY))))
                said = answer(len(asked))
                if said is None:
                    return
                connection.sendall(said)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def flood(port, **how):
    return Flood(Target.of(f"http://127.0.0.1:{port}/", BODY), **how)


def test_clients_ask_again_when_they_have_their_answer():
    with server(lambda number: GOOD if number % 3 else GOOD.replace(b"200 OK", b"429 No")) as (port, asked):
        load = flood(port).by_clients(4, 0.5)
    assert set(asked) == {len(BODY)} and not load.errors
    assert load.requests == len(asked) and load.statuses[429] == len(asked) // 3
    assert len(load.latencies) == load.statuses[200] and 0 < min(load.latencies) <= load.seconds


def test_a_rate_is_kept_whether_or_not_answers_come():
    with server(lambda number: GOOD) as (port, asked):
        load = flood(port).by_rate(100, 0.5)
    assert load.requests == len(asked) == 50 and load.seconds > 0.45


def test_a_connection_that_was_closed_after_an_answer_is_opened_again():
    with server(lambda number: GOOD if number % 2 else None) as (port, asked):
        load = flood(port).by_clients(1, 0.3)
    assert load.statuses[200] > 2 and load.requests < len(asked) and not load.errors


@pytest.mark.parametrize(("said", "why"), [(b"HTTP/1.1 200 OK\r\nContent-Le", "no answer in time"),
                                           (None, "answer cut short")])  # fmt: skip
def test_why_there_is_no_answer(said, why):
    with server(lambda number: said) as (port, _):
        load = flood(port, timeout=0.2).by_rate(20, 0.2)
    assert dict(load.errors) == {why: 4} and not load.statuses


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    load = flood(port).by_rate(20, 0.2)
    assert dict(load.errors) == {"ECONNREFUSED": 4}
