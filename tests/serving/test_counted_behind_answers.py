"""Maps are counted behind the answer: nobody waits for that, and nothing is lost."""

from __future__ import annotations

import threading

import pytest

from support.servers.live_server import listening
from support.servers.served_model import PNGS, server, tiny_file

pytest.importorskip("uvicorn", reason="the extra serve is not installed: nothing was served")
from fastcam.serving import service
from fastcam.serving.caller import Caller
from fastcam.serving.watching.metrics import Metrics

OK = b'fastcam_maps_total{model="tiny",status="ok"} '


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


class Slow(Metrics):
    """Counts maps only while it may."""

    def __init__(self):
        super().__init__()
        self.may = threading.Event()

    def saw(self, model, explanation):
        assert self.may.wait(60)
        super().saw(model, explanation)


def test_answers_come_before_their_maps_are_counted_and_the_end_waits_for_all_of_them(path):
    metrics = Slow()
    with listening(server(path, metrics=metrics).app) as client:
        assert [client.ask("/v1/explain", picture)[0] for picture in PNGS] == [200] * 4
        assert OK not in metrics.text()
        metrics.may.set()
    assert OK + b"4.0" in metrics.text()


def test_who_asks_for_the_counts_gets_those_of_all_answers(path):
    metrics = Slow()
    with listening(server(path, metrics=metrics).app) as client:
        assert client.ask("/v1/explain", PNGS[0])[0] == 200
        threading.Timer(0.3, metrics.may.set).start()
        assert OK + b"1.0" in client.ask("/metrics")[2]


def test_what_waits_to_be_counted_has_a_bound(path, monkeypatch):
    monkeypatch.setattr(service, "BEHIND", 2)
    metrics = Slow()
    with listening(server(path, metrics=metrics).app) as client:
        assert [client.ask("/v1/explain", picture)[0] for picture in PNGS[:2]] == [200] * 2
        said = []
        third = threading.Thread(target=lambda: said.append(client.ask("/v1/explain", PNGS[2])[0]))
        third.start()
        third.join(1)
        assert not said, "it is counted before its answer"
        metrics.may.set()
        third.join(60)
        assert said == [200] and OK + b"3.0" in client.ask("/metrics")[2]


def test_a_count_that_fails_is_logged_and_takes_no_answer(path, caplog):
    metrics = Metrics()
    metrics.maps = None
    with listening(server(path, metrics=metrics).app) as client:
        assert client.ask("/v1/explain", PNGS[0])[0] == 200
        assert client.ask("/v1/explain", PNGS[0])[0] == 200
    assert [record.message for record in caplog.records] == ["maps were not counted"] * 2


def test_what_nobody_waits_for_is_done_at_once():
    done, patient = [], Caller(patient=True)
    Caller().after_answer(lambda: done.append("of nobody's"))
    patient.after_answer(lambda: done.append("behind"))
    assert done == ["of nobody's"]
    (left,) = patient.take_deferred()
    left()
    patient.after_answer(lambda: done.append("late"))
    leaving = Caller(patient=True)
    leaving.leave()
    leaving.after_answer(lambda: done.append("of one who left"))
    assert done == ["of nobody's", "behind", "late", "of one who left"]
