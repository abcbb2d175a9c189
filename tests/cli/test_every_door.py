"""One question through every door: the command line, tables, streams, HTTP and gRPC answer as the Explainer does.

The browser and the C and C++ programs are compared with it where they are built (tests/web, tests/kernels).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from queue import Queue
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastcam
from fastcam import Explainer
from fastcam.cli import app
from fastcam_export import export_model
from support.servers.live_server import listening
from support.servers.served_model import server

pytestmark = pytest.mark.xdist_group("every door")
DATA = Path(fastcam.__file__).parent / "data"
TARGETS, THRESHOLD = (-1, "star"), 0.3
METHODS = ("gradcam", "layercam")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures that are read in ways of their own: turned by EXIF, grey, of 16 bits, with alpha, as a palette."""
    folder = tmp_path_factory.mktemp("doors") / "pictures, and names with blanks ü"
    folder.mkdir()
    scene = Image.open(DATA / "scene.jpg").convert("RGB").crop((0, 0, 500, 380))
    turned = Image.Exif()
    turned[0x112] = 6
    scene.save(folder / "a turned.jpg", exif=turned, quality=95)
    scene.convert("L").save(folder / "b grey.png")
    cv2.imwrite(str(folder / "c deep.png"), np.asarray(scene)[:, :, ::-1].astype(np.uint16) * 257)
    scene.putalpha(99)
    scene.save(folder / "d alpha.png")
    scene.convert("P").save(folder / "e palette.gif")
    return folder


@pytest.fixture(scope="module")
def pictures(folder):
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "scenes.cam.onnx"
    labels = DATA / "scenes.labels.txt"
    export_model(DATA / "scenes.onnx", path, preprocess="imagenet", labels=labels, emit="gradients", check=False)
    return path


@pytest.fixture(scope="module")
def wanted(model, pictures):
    """What the Explainer says of each picture by itself, by method."""
    explainer = Explainer(model, threads=1)

    def one(picture, method):
        return explainer(picture, list(TARGETS), method=method, threshold=THRESHOLD)

    found = {method: [one(picture, method) for picture in pictures] for method in METHODS}
    assert any("ok" in one.status[0] and one.boxes.any() for one in found["gradcam"])
    assert len({one.geometry[0].original for one in found["gradcam"]}) == 2, "one lies on its side"
    return found


@pytest.fixture(scope="module")
def doors(model):
    """The client of HTTP, and the address of gRPC."""
    pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
    pytest.importorskip("grpc", reason="the extra serve is not installed: nothing was served")
    from fastcam.serving.grpc.server import GrpcServer
    from fastcam.serving.limits import Limits

    ports: Queue[int] = Queue()
    served = server(model, Limits(), beside=[GrpcServer("127.0.0.1", 0, told=ports.put).serving])
    with listening(served.app) as http:
        yield http, f"127.0.0.1:{ports.get(timeout=60)}"


@pytest.fixture(scope="module")
def client(doors):
    return doors[0]


@pytest.fixture(scope="module")
def address(doors):
    return doors[1]


def asked(model, *more):
    targets = [word for target in TARGETS for word in ("--target", str(target))]
    return [str(model), *more, *targets, "--threshold", str(THRESHOLD), "--threads", "1"]


def verb(*arguments):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def alike(said, explanation):
    """Targets as JSON have them, beside an explanation."""
    assert [one["class"] for one in said] == explanation.classes[0].tolist()
    assert [one["status"] for one in said] == list(explanation.status[0])
    for t, one in enumerate(said):
        np.testing.assert_allclose(one["box"] or [0] * 4, explanation.boxes[0, t], atol=6e-3)  # JSON has two digits
        assert one["score"] == pytest.approx(explanation.score(0, t), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_explain(model, pictures, wanted, tmp_path, method):
    verb("explain", *asked(model, *map(str, pictures)), "--method", method, "--output", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert [Path(one["file"]).name for one in report["images"]] == [path.name for path in pictures]
    for said, explanation in zip(report["images"], wanted[method], strict=True):
        alike(said["targets"], explanation)


@pytest.mark.parametrize("method", METHODS)
def test_stream(model, folder, wanted, method):
    lines = [line for line in verb("stream", *asked(model, folder), "--method", method).splitlines() if line[:1] == "{"]
    for line, explanation in zip(lines, wanted[method], strict=True):
        alike(json.loads(line)["targets"], explanation)


@pytest.mark.parametrize("method", METHODS)
def test_batch(model, folder, wanted, tmp_path, method):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra batch is not installed: no table was written")
    verb("batch", *asked(model, folder), "--method", method, "--maps", "--out", tmp_path / "table")
    rows = parquet.read_table(tmp_path / "table").to_pylist()
    for i, explanation in enumerate(wanted[method]):
        own = [row for row in rows if row["picture"] == i]
        alike(own, explanation)
        assert (own[0]["height"], own[0]["width"]) == explanation.geometry[0].original
        for t, row in enumerate(own):
            if row["status"] == "ok":
                kept = np.reshape(row["map"], row["map_shape"]).astype(np.float32) * row["map_max"]
                whole = np.maximum(explanation.maps[0, t], 0)
                np.testing.assert_allclose(kept, whole, atol=1e-3 * whole.max())


@pytest.mark.parametrize("method", METHODS)
def test_http(client, pictures, wanted, method):
    said = {"targets": list(TARGETS), "threshold": THRESHOLD, "method": method}
    query = urlencode(said | {"targets": ",".join(map(str, TARGETS))})
    instances = [{"b64": base64.b64encode(path.read_bytes()).decode()} for path in pictures]
    status, together = client.json("/v1/models/scenes:explain", {"instances": instances, "parameters": said})
    assert status == 200, together
    _, predicted = client.json("/v1/models/scenes:predict", {"instances": instances})
    for i, (path, explanation) in enumerate(zip(pictures, wanted[method], strict=True)):
        status, _, alone = client.ask(f"/v1/explain?{query}", path.read_bytes())
        assert status == 200, alone
        status, _, later = client.ask(f"/v1/explain/{predicted['predictions'][i]['id']}?{query}")
        assert status == 200, later
        for one in (json.loads(alone), together["explanations"][i], json.loads(later)):
            alike(one["targets"], explanation)


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_http(client, pictures, wanted, method):
    contents = [path.read_bytes() for path in pictures]
    tail = b"".join(len(one).to_bytes(4, "little") + one for one in contents)
    image = {"name": "image", "datatype": "BYTES", "shape": [len(contents)]}
    image["parameters"] = {"binary_data_size": len(tail)}
    said = {"targets": list(TARGETS), "threshold": THRESHOLD, "method": method}
    head = json.dumps({"inputs": [image], "parameters": said}).encode()
    path, length = "/v2/models/scenes/infer", {"Inference-Header-Content-Length": str(len(head))}
    status, _, body = client.ask(path, head + tail, length)
    assert status == 200, body
    found = {
        one["name"].removeprefix("fastcam."): np.reshape(one["data"], one["shape"])
        for one in json.loads(body)["outputs"]
    }
    of_tensors(found, wanted[method])


@pytest.mark.parametrize("method", METHODS)
def test_grpc(address, pictures, wanted, method):
    grpcclient = pytest.importorskip("tritonclient.grpc", reason="no tritonclient: nobody asked over gRPC")
    image = grpcclient.InferInput("image", [len(pictures)], "BYTES")
    image.set_data_from_numpy(np.array([path.read_bytes() for path in pictures], object))
    said = {"targets": ",".join(map(str, TARGETS)), "threshold": THRESHOLD, "method": method}
    with grpcclient.InferenceServerClient(address) as client:
        answer = client.infer("scenes", [image], parameters=said)
    of_tensors({name: answer.as_numpy(f"fastcam.{name}") for name in ("classes", "boxes", "maps")}, wanted[method])


def of_tensors(found, explanations):
    for i, explanation in enumerate(explanations):
        np.testing.assert_array_equal(found["classes"][i], explanation.classes[0])
        np.testing.assert_allclose(found["boxes"][i], explanation.boxes[0], atol=1e-3)
        largest = np.abs(explanation.maps[0]).max()
        np.testing.assert_allclose(found["maps"][i], explanation.maps[0], rtol=1e-4, atol=1e-5 * largest)
