"""Folders that are watched: a new file takes over, a broken one does not, and requests find one or the other."""

from __future__ import annotations

import os
import threading
import time

import pytest

from fastcam import Explainer, FastcamError
from fastcam.serving.errors import NotServed
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.parameters import Parameters
from fastcam.serving.repository import Repository, places
from support.models.contract_model import noise, random_model

FIRST, SECOND = (random_model(labels=(name, "b", "c", "d", "e")).file() for name in ("old", "new"))


def load(place):
    return ServedModel(place.name, place.version, Explainer(place.path), Limits())


def label(repository, name="net", version=None):
    return repository.get(name, version).explainer.metadata.labels[0]


def put(path, content, stamp):
    """A file as another program would put it there, with a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_bytes(content)
    os.utime(aside, ns=(stamp, stamp))
    os.replace(aside, path)


def test_a_new_file_takes_over_and_a_broken_one_does_not(tmp_path):
    said = []
    put(tmp_path / "net.cam.onnx", FIRST, 1)
    repository = Repository([tmp_path], load, said.append)
    assert label(repository) == "old" and repository.get().name == "net"
    repository.look()
    assert len(said) == 1, "nothing has changed"
    put(tmp_path / "net.cam.onnx", b"no model", 2)
    repository.look()
    assert label(repository) == "old" and "the old one stays" in said[-1]
    repository.look()
    assert len(said) == 2, "it is said once"
    put(tmp_path / "net.cam.onnx", SECOND, 3)
    repository.look()
    assert label(repository) == "new"
    put(tmp_path / "other.cam.onnx", FIRST, 4)
    repository.look()
    assert label(repository, "other") == "old"
    (tmp_path / "net.cam.onnx").unlink()
    repository.look()
    with pytest.raises(NotServed, match=r"no model 'net'; served are other"):
        repository.get("net")
    repository.close()


def test_a_server_that_starts_again_serves_the_files_that_are_whole(tmp_path):
    said = []
    put(tmp_path / "a.cam.onnx", b"no model", 1)
    with pytest.raises(FastcamError, match=r"no model of .* can be loaded"):
        Repository([tmp_path], load)
    put(tmp_path / "net" / "1" / "model.cam.onnx", FIRST, 1)
    put(tmp_path / "net" / "2" / "model.cam.onnx", b"no model", 1)
    repository = Repository([tmp_path], load, said.append)
    assert label(repository) == "old" and sorted(repository.models) == ["net"]
    assert sum("not loaded" in line for line in said) == 2
    put(tmp_path / "net" / "2" / "model.cam.onnx", SECOND, 2)
    repository.look()
    assert label(repository) == "new"
    repository.close()
    with pytest.raises(FastcamError, match=r"a\.cam\.onnx: not an ONNX file"):
        Repository([tmp_path / "a.cam.onnx", tmp_path / "net"], load)


@pytest.mark.parametrize("file", ["net.cam.onnx", "net.cam.ort", "net.onnx", "net.ort"])
def test_a_file_is_served_by_its_name_without_its_ending(tmp_path, file):
    (tmp_path / file).write_bytes(FIRST)
    assert [place.name for place in places(tmp_path / file)] == ["net"]


def test_the_highest_version_answers_who_names_none(tmp_path):
    for version, content in (("2", FIRST), ("10", SECOND), ("draft", b"no model")):
        put(tmp_path / "net" / version / "model.cam.onnx", content, 1)
    repository = Repository([tmp_path], load)
    assert (label(repository), label(repository, "net", "2")) == ("new", "old")
    with pytest.raises(NotServed, match="no version '3' of net; served are 10, 2"):
        repository.get("net", "3")
    repository.close()


def test_what_cannot_be_served_is_refused(tmp_path):
    put(tmp_path / "a" / "net.cam.onnx", FIRST, 1)
    put(tmp_path / "b" / "net.cam.onnx", FIRST, 1)
    with pytest.raises(FastcamError, match="two files are version 1 of model 'net'"):
        Repository([tmp_path / "a", tmp_path / "b"], load)
    with pytest.raises(FastcamError, match="no such file or folder"):
        Repository([tmp_path / "c"], load)
    (tmp_path / "d").mkdir()
    with pytest.raises(FastcamError, match="no model in"):
        Repository([tmp_path / "d"], load)


def test_requests_go_on_while_a_model_is_replaced(tmp_path):
    """Each answer is of the old model or of the new one, and none is lost."""
    from fastcam.serving.errors import Gone

    put(tmp_path / "net.cam.onnx", FIRST, 1)
    repository = Repository([tmp_path], load)
    stop, seen, wrong = threading.Event(), set(), []

    def ask():
        while not stop.is_set():
            for _ in range(2):
                try:
                    model = repository.get("net")
                    (found,) = model.explain([noise(20, 20, seed=1)], Parameters((0,)), time.monotonic() + 30)
                    seen.add(found.label())
                    break
                except Gone:
                    continue
            else:
                wrong.append("gone twice")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for stamp in range(2, 8):
        put(tmp_path / "net.cam.onnx", SECOND if stamp % 2 == 0 else FIRST, stamp)
        repository.look()
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    repository.close()
    assert seen == {"old", "new"} and not wrong


@pytest.mark.parametrize("name", ["stats", "a:predict", "a:explain", ""])
def test_a_model_whose_name_is_a_routes_is_refused(tmp_path, name):
    """GET /v2/models/stats has the statistics of all models: a model of that name had no metadata."""
    put(tmp_path / f"{name}.cam.onnx", FIRST, 1)
    with pytest.raises(FastcamError, match=r"the server has a route called .*; rename the model"):
        Repository([tmp_path / f"{name}.cam.onnx"], load)
    put(tmp_path / "net.cam.onnx", FIRST, 1)
    said = []
    repository = Repository([tmp_path], load, said.append)
    assert set(repository.models) == {"net"} and any("rename the model" in line for line in said)
