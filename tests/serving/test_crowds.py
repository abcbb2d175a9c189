"""A small file is opened once more, for many clients: when, how, and that they get what one gets."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fastcam import Explainer
from fastcam.serving.limits import Limits
from fastcam.serving.parameters import Parameters
from fastcam.serving.processes import process
from fastcam.serving.processes.process import Process
from fastcam.serving.repository import Place
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import Spans
from support.servers.served_model import PICTURES, PNGS, tiny_file

ASKED = Parameters((1, 2))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("crowd"))


@pytest.fixture
def opened(path):
    """Opens it as a server does."""
    made = []

    def open_it(threads):
        made.append(Process((path,), Limits(), threads=threads)._load(Metrics({}), Spans(), Place("tiny", "1", path)))
        return made[-1]

    yield open_it
    for one in made:
        one.close()


@pytest.mark.parametrize(("threads", "sessions"), [(2, 2), (3, 3), (1, None), (9, None)])
def test_as_many_runs_of_one_thread_as_a_run_has_threads(opened, threads, sessions):
    model = opened(threads)
    assert (model.explainer.sessions, model.crowd and model.crowd.sessions) == (1, sessions)
    if model.crowd is not None:
        options = model.crowd._network._session.get_session_options()
        assert options.intra_op_num_threads == 1
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_large_file_is_opened_once(opened, monkeypatch):
    monkeypatch.setattr(process, "SMALL", 100)
    assert opened(2).crowd is None


def test_a_file_whose_weights_lie_elsewhere_is_opened_once(opened, monkeypatch):
    monkeypatch.setattr(process.cache, "has_external_data", lambda model: True)
    assert opened(2).crowd is None


def test_many_clients_get_what_a_call_gets(opened, path):
    """Three requests for each picture at once; a run of all threads goes on until one of one thread has begun."""
    model, plain = opened(2), Explainer(path)
    ran, run = threading.Event(), model.crowd._network._session.run
    usual = model.explainer._network._session.run
    model.crowd._network._session = _Session(model.crowd._network._session, lambda *of: (ran.set(), run(*of))[1])
    model.explainer._network._session = _Session(
        model.explainer._network._session, lambda *of: (ran.wait(20), usual(*of))[1]
    )
    answers = {}

    def ask(i):
        answers[i] = model.explain([PNGS[i % 4]], ASKED, time.monotonic() + 30)[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ran.is_set() and len(answers) == 12
    for i, found in answers.items():
        wanted = plain(PICTURES[i % 4], [1, 2])
        np.testing.assert_allclose(found.heatmaps, wanted.heatmaps, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-6)


class _Session:
    """A session whose runs are others."""

    def __init__(self, session, run):
        self._session, self.run = session, run

    def __getattr__(self, name):
        return getattr(self._session, name)
