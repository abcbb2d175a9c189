"""Configuration, statistics and ids as Triton's own clients read them, unchanged, over HTTP and gRPC."""

from __future__ import annotations

import json
import shutil
import struct
import threading
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from fastcam import Explainer
from fastcam_export import export_model
from support.servers.live_server import listening
from support.servers.served_model import PICTURES, PNGS, server, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: nothing was asked")
pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed: nothing was asked")
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from fastcam.serving.grpc.server import GrpcServer
from fastcam.serving.limits import Limits

DATA = Path(str(files("fastcam") / "data"))


class Asked:
    """A client of one protocol, whose answers are dicts as in JSON."""

    def __init__(self, library, at, http):
        self.library, self.http = library, http
        self.client = library.InferenceServerClient(at)
        self.how = {} if library is httpclient else {"as_json": True}

    def config(self, name="scenes", version=""):
        found = self.client.get_model_config(name, version, **self.how)
        return found.get("config", found)

    def statistics(self, name="", version=""):
        return self.client.get_inference_statistics(name, version, **self.how)["model_stats"]

    def infer(self, array, datatype="FP32", **more):
        tensor = self.library.InferInput("image", list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return self.client.infer("scenes", [tensor], **more)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("served") / "scenes.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(DATA / "scenes.onnx", made, preprocess="imagenet", labels=labels, check=False)
    return made


@pytest.fixture(scope="module", params=[httpclient, grpcclient], ids=["http", "grpc"])
def asked(path, request):
    """Of a server of its own, whose counts begin at nothing."""
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    served = server(path, Limits(pictures=5), beside=[GrpcServer("127.0.0.1", 0, told=told).serving])
    with listening(served.app) as http:
        assert there.wait(60)
        port = http.port if request.param is httpclient else ports[0]
        found = Asked(request.param, f"127.0.0.1:{port}", http)
        yield found
        found.client.close()


def numbers(value):
    """JSON of protobuf has long numbers as texts."""
    return SimpleNamespace(count=int(value.get("count", 0)), ns=int(value.get("ns", 0)))


def test_statistics_count_requests_rows_and_runs(asked):
    before = asked.statistics("scenes")[0]
    assert int(before.get("inference_count", 0)) == int(before.get("execution_count", 0)) == 0
    x = np.random.default_rng(0).random((2, 3, 128, 128), np.float32)
    for _ in range(3):
        asked.infer(x)
    with pytest.raises(InferenceServerException, match="unicorn"):
        asked.infer(x, parameters={"targets": "unicorn"})
    (found,) = asked.statistics("scenes", "1")
    assert (found["name"], found["version"]) == ("scenes", "1")
    assert (int(found["inference_count"]), int(found["execution_count"])) == (6, 3)
    steps = {name: numbers(value) for name, value in found["inference_stats"].items()}
    assert (steps["success"].count, steps["fail"].count) == (3, 1)
    assert [steps[name].count for name in ("queue", "compute_infer", "compute_output")] == [3, 3, 3]
    assert steps["success"].ns >= steps["compute_infer"].ns > 0 and steps["fail"].ns > 0
    assert steps["cache_hit"].count == steps["cache_miss"].count == 0
    (batch,) = found["batch_stats"]
    assert (int(batch["batch_size"]), numbers(batch["compute_infer"]).count) == (2, 3)
    asked.infer(np.array([PNGS[0]], object), "BYTES")
    (found,) = asked.statistics()
    assert (int(found["inference_count"]), int(found["execution_count"])) == (7, 4)
    steps = {name: numbers(value) for name, value in found["inference_stats"].items()}
    assert steps["compute_input"].count == 1 and steps["compute_input"].ns > 0, "a picture was decoded"


def test_the_configuration_says_what_the_file_takes(asked, path):
    graph = onnx.load(path, load_external_data=False).graph
    found, defaults = asked.config(version="1"), {value.name for value in graph.initializer}
    assert (found["name"], found["platform"], found["max_batch_size"]) == ("scenes", "onnxruntime_onnx", 5)
    kinds = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}
    for said, values in ((found["input"], graph.input), (found["output"], graph.output)):
        wanted = []
        for value in values:
            if value.name not in defaults:
                sides = [side.dim_value or -1 for side in value.type.tensor_type.shape.dim][1:]
                wanted.append((value.name, kinds[value.type.tensor_type.elem_type], sides))
        assert [(one["name"], one["data_type"], [int(side) for side in one["dims"]]) for one in said] == wanted
    assert [int(size) for size in found["dynamic_batching"]["preferred_batch_size"]] == [8]


def test_predictions_have_ids_by_which_they_are_explained(asked, path):
    pictures = np.array(PNGS[:2], object)
    answer = asked.infer(pictures, "BYTES", parameters={"predict": True})
    response = answer.get_response()
    if asked.library is httpclient:
        names, ids = [one["name"] for one in response["outputs"]], response["parameters"]["fastcam.ids"]
    else:
        names = [one.name for one in response.outputs]
        ids = response.parameters["fastcam.ids"].string_param
    assert names == ["probabilities"]
    for picture, one, row in zip(PICTURES, ids.split(","), answer.as_numpy("probabilities"), strict=False):
        wanted = Explainer(path)(picture, [3])
        np.testing.assert_allclose(row, wanted.outputs["probabilities"][0], rtol=1e-4, atol=1e-6)
        status, _, body = asked.http.ask(f"/v1/explain/{one}?targets=3")
        assert status == 200
        assert json.loads(body)["targets"][0]["box"] == pytest.approx(wanted.boxes[0][0].tolist(), abs=0.01)
    with pytest.raises(InferenceServerException, match="one of them"):
        asked.infer(pictures, "BYTES", parameters={"predict": True, "targets": "3"})
    explained_later(asked, path, ids)


def explained_later(asked, path, ids):
    """By the clients of both protocols, without the pictures."""
    names = [f"fastcam.{name}" for name in ("classes", "maps", "boxes", "heatmaps")]
    outputs = [asked.library.InferRequestedOutput(name) for name in ("probabilities", *names)]
    said = {"prediction": ids, "targets": "star,-1", "method": "gradcam", "threshold": 0.4}
    answer = asked.client.infer("scenes", [], outputs=outputs, parameters=said)
    wanted = Explainer(path)(PICTURES[:2], ["star", -1], 0.4)
    for name in names:
        array = getattr(wanted, name.removeprefix("fastcam."))
        np.testing.assert_allclose(answer.as_numpy(name), array, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), wanted.outputs["probabilities"], rtol=1e-4, atol=1e-6)
    one = asked.client.infer("scenes", [], parameters={"prediction": ids.split(",")[1]})
    assert one.as_numpy("fastcam.maps").shape[:2] == (1, 1) and one.as_numpy("fastcam.heatmaps") is None
    for said, line in (
        ({"prediction": "unknown"}, "predict again"),
        ({"prediction": 7}, "0 ids"),
        ({"prediction": ",".join([ids] * 3)}, "6 ids"),
        ({"prediction": ids, "predict": True}, "no inputs with it"),
        ({"prediction": ids, "targets": "unicorn"}, "unicorn"),
    ):
        with pytest.raises(InferenceServerException, match=line):
            asked.client.infer("scenes", [], parameters=said)
    with pytest.raises(InferenceServerException, match="no inputs with it"):
        asked.infer(np.array(PNGS[:1], object), "BYTES", parameters={"prediction": ids})
    with pytest.raises(InferenceServerException, match="has no inputs"):
        asked.client.infer("scenes", [])


def test_a_prediction_is_explained_by_the_model_that_made_it(path, tmp_path):
    """Another version would explain by other weights."""
    folder = tmp_path / "models" / "scenes"
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
        shutil.copy(path, folder / version / "scenes.cam.onnx")
    with listening(server(tmp_path / "models").app) as http:
        picture = {
            "name": "image",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": 4 + len(PNGS[0])},
        }
        head = json.dumps({"inputs": [picture], "parameters": {"predict": True}}).encode()
        body = head + struct.pack("<I", len(PNGS[0])) + PNGS[0]
        sizes = {"inference-header-content-length": str(len(head))}
        status, _, answer = http.ask("/v2/models/scenes/versions/1/infer", body, sizes)
        said = {"parameters": {"prediction": json.loads(answer)["parameters"]["fastcam.ids"]}}
        assert status == 200
        assert http.json("/v2/models/scenes/versions/1/infer", said)[0] == 200
        status, answer = http.json("/v2/models/scenes/infer", said)
        assert status == 404 and "version 1" in answer["error"]


def test_what_is_not_served_has_neither(asked):
    for ask in (asked.config, asked.statistics):
        for name, version in (("other", ""), ("scenes", "9")):
            with pytest.raises(InferenceServerException, match=r"no (model|version)"):
                ask(name, version)


def test_a_file_whose_rows_are_not_known_to_be_pictures_has_no_batch_of_tritons(tmp_path):
    with listening(server(tiny_file(tmp_path)).app) as http:
        status, found = http.json("/v2/models/tiny/config")
    assert (status, found["max_batch_size"], found["input"][0]["dims"]) == (200, 0, [-1, 3, 32, 32])
    assert "dynamic_batching" not in found
