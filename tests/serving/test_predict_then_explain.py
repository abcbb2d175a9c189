"""Predictions run in batches, and those that somebody asks about are explained later, each alone."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from fastcam import Explainer, FastcamError
from fastcam.runtime.exported_model import single_images
from fastcam.runtime.inputs.batch import join_batches
from fastcam.serving.errors import NotServed
from fastcam.serving.kept import Kept
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.parameters import Parameters
from fastcam_export import export_model
from support.models.small_models import save
from support.models.split_models import MODELS
from support.servers.live_server import listening
from support.servers.served_model import PICTURES, PNGS, server, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Of each form of an export one file."""
    folder = tmp_path_factory.mktemp("forms")
    made = {"one file": tiny_file(folder)}
    for form, batch in (("on demand", "N"), ("on demand, fixed batch", 4)):
        make, layer = MODELS["residual"]
        (folder / form).mkdir()
        source = save(make(batch=batch), folder / form / "net.onnx")
        made[form] = folder / form / "net.cam.onnx"
        export_model(source, made[form], layer=layer, on_demand=True, check=False, preprocess="imagenet")
    return made


@pytest.fixture(params=["one file", "on demand", "on demand, fixed batch"])
def explainer(request, files):
    return Explainer(files[request.param])


def model_of(explainer):
    return ServedModel("tiny", "1", explainer, Limits(), size=8)


def soon():
    return time.monotonic() + 30


def test_predictions_of_many_clients_run_together_and_each_is_explained_alone(explainer):
    """The runs of the explanation part are of one picture, where the batch is free."""
    steps, sizes, go, begun = explainer.prediction_steps(), [], threading.Event(), threading.Event()

    def run(batch):
        sizes.append(len(batch.files))
        begun.set()
        assert go.wait(30)
        return steps.run(batch)

    explainer.prediction_steps = lambda: replace(steps, run=run)
    model, found = model_of(explainer), {}

    def ask(i):
        found[i] = model.predict([PNGS[i]], soon())[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    until = soon()
    while len(model._predictions.batchers[0]) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(30)
    assert sizes == [1, 3]
    for i, picture in enumerate(PICTURES):
        np.testing.assert_allclose(found[i].scores, explainer.predict([picture]).scores, rtol=1e-5, atol=1e-6)
        for targets in ([-1], [0, 3]):
            explanation, wanted = (
                model.explain_later(found[i], Parameters(tuple(targets)), soon()),
                explainer(picture, targets),
            )
            for field in ("classes", "maps", "boxes", "heatmaps"):
                np.testing.assert_allclose(getattr(explanation, field), getattr(wanted, field), rtol=1e-4, atol=1e-5)
    forward = found[2].runs[0].forward
    assert forward.ran == (explainer.fixed_batch or 1) or not forward.carried
    model.close()


@pytest.mark.parametrize("form", ["one file", "on demand"])
def test_a_prediction_holds_nothing_of_the_others(files, form):
    """Bytes that are counted are the bytes that are held."""
    explainer = Explainer(files[form])
    steps = explainer.prediction_steps()
    alone = steps.run(steps.prepare(PNGS[0]))[0]
    one, other = steps.run(join_batches([steps.prepare(png) for png in PNGS[:2]]))
    assert one.nbytes == other.nbytes == alone.nbytes
    forward = one.runs[0].forward
    for values in (forward.outputs, forward.explained, forward.carried, {"tensor": forward.tensor}):
        for name, value in values.items():
            assert value.base is None or value.base.nbytes == value.nbytes, name


def test_values_that_cannot_be_parted():
    """A value with neither a row for each image nor the same for all: nothing is cut."""
    rows = {"a": np.ones((4, 2)), "n": np.array([4]), "s": np.array([7.0])}
    one = {"a": np.ones((1, 2)), "n": np.array([1]), "s": np.array([7.0])}
    assert single_images.kinds(rows, 4, one) == {"a": "rows", "n": "count", "s": "shared"}
    assert single_images.kinds(rows | {"m": np.ones((2, 4))}, 4, one | {"m": np.ones((2, 1))}) is None
    assert single_images.kinds(rows | {"m": np.array([3.0])}, 4, one | {"m": np.array([2.0])}) is None
    found = single_images.part(rows, {"a": "rows", "n": "count", "s": "shared"}, 2)
    assert {name: value.tolist() for name, value in found.items()} == {"a": [[1, 1]], "n": [1], "s": [7.0]}


def test_over_http(files):
    path = files["one file"]
    explainer = Explainer(path)
    with listening(server(path).app) as client:
        body = {"instances": [{"b64": base64.b64encode(one).decode()} for one in PNGS[:2]]}
        ids = [one["id"] for one in client.json("/v1/models/tiny:predict", body)[1]["predictions"]]
        assert len(set(ids)) == 2
        for name, picture in zip(ids, PICTURES, strict=False):
            status, found = client.json(f"/v1/explain/{name}?targets=ship,-1&threshold=0.4&method=hirescam")
            wanted = explainer(picture, ["ship", -1], 0.4, method="hirescam").to_dict()["images"][0]
            assert status == 200 and (found["width"], found["height"]) == (70, 50)
            for one, other in zip(found["targets"], wanted["targets"], strict=True):
                assert one == pytest.approx(other, rel=1e-5)
        status, headers, content = client.ask(f"/v1/explain/{ids[0]}", headers={"accept": "image/png"})
        assert (status, headers["content-type"], content[:4]) == (200, "image/png", b"\x89PNG")
        assert client.ask(f"/v1/explain/{ids[0]}?targets=unicorn")[0] == 400
        status, _, answer = client.ask("/v1/explain/nothing")
        assert status == 404 and "predict again" in json.loads(answer)["error"]
    with listening(server(path, Limits(kept=0)).app) as client:
        assert "id" not in client.json("/v1/models/tiny:predict", body)[1]["predictions"][0]


class Sized:
    """A prediction of so many bytes."""

    def __init__(self, nbytes):
        self.nbytes = nbytes


class Open:
    closed = False


def test_what_is_kept_has_bounds_of_memory_and_time():
    now = [0.0]
    kept, model = Kept(100, 10, lambda: now[0]), Open()
    first, second = kept.add(model, Sized(60)), kept.add(model, Sized(40))
    assert kept.get(first)[1].nbytes == 60 and kept.add(model, Sized(101)) is None
    third = kept.add(model, Sized(30))
    with pytest.raises(NotServed):
        kept.get(first)
    assert kept.get(second) and kept.get(third)
    now[0] = 10.0
    with pytest.raises(NotServed, match="10 seconds at most"):
        kept.get(second)
    last = kept.add(model, Sized(100))
    model.closed = True
    with pytest.raises(NotServed):
        kept.get(last)


def test_a_limit_of_none_is_a_limit():
    assert Limits(kept=0).kept == 0
    with pytest.raises(FastcamError):
        Limits(kept=-1)
