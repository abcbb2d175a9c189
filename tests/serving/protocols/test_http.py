"""A served file answers as the file and the Explainer do, and a wrong request gets one line and harms nobody."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import threading
import urllib.error
import urllib.request
import zlib

import cv2
import numpy as np
import onnxruntime
import pytest

from fastcam import Explainer
from support.servers.live_server import listening
from support.servers.served_model import LABELS, PICTURES, PNGS, png, server, tensor, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
from fastcam.serving.limits import Limits

IMAGE = {"name": "image", "shape": [1, 3, 32, 32], "datatype": "FP32"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(path):
    with listening(server(path).app) as opened:
        yield opened


@pytest.fixture(scope="module")
def explainer(path):
    return Explainer(path)


@pytest.fixture(scope="module")
def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def sent(name, array):
    kind = {"float32": "FP32", "int64": "INT64"}[array.dtype.name]
    return {"name": name, "shape": list(array.shape), "datatype": kind, "data": array.ravel().tolist()}


def got(answer):
    assert "error" not in answer, answer
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in answer["outputs"]}


# ---- POST /v1/explain


def test_a_picture_gives_what_the_explainer_gives(client, explainer):
    status, _, body = client.ask("/v1/explain?targets=-1,crane&threshold=0.4&method=hirescam", PNGS[0])
    found, wanted = json.loads(body), explainer(PICTURES[0], [-1, "crane"], 0.4, method="hirescam").to_dict()
    assert status == 200
    for one, other in zip(found["targets"], wanted["images"][0]["targets"], strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    assert (found["width"], found["height"], found["method"]) == (70, 50, "hirescam")
    assert "tiny.cam.onnx" not in body.decode(), "where files lie is nobody's business"


@pytest.mark.parametrize("accept", ["image/png", "multipart/mixed"])
def test_an_overlay_is_the_explainers(client, explainer, accept):
    wanted = explainer(PICTURES[0], ["dog"]).overlay(0)
    _, headers, body = client.ask("/v1/explain?targets=dog", PNGS[0], {"accept": accept})
    assert headers["content-type"].startswith(accept)
    if accept == "multipart/mixed":
        first, second = body.split(b"--fastcam-part")[1:3]
        assert json.loads(first.split(b"\r\n\r\n", 1)[1])["targets"][0]["label"] == "dog"
        body = second.split(b"\r\n\r\n", 1)[1]
    found = cv2.imdecode(np.frombuffer(body, np.uint8), 1)[:, :, ::-1]
    assert (found == wanted).all()


def test_a_form_says_picture_and_parameters(client):
    mark = b"xyz"
    fields = {"targets": b"ship", "threshold": b"0.3"}
    parts = [b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (k.encode(), v) for k, v in fields.items()]
    parts.append(b'Content-Disposition: form-data; name="image"; filename="/etc/passwd"\r\n\r\n' + PNGS[1])
    body = b"".join(b"--" + mark + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + mark + b"--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=xyz"}
    status, _, answer = client.ask("/v1/explain", body, kind)
    found = json.loads(answer)
    assert status == 200 and (found["targets"][0]["label"], found["threshold"]) == ("ship", 0.3)
    assert client.ask("/v1/explain", body[:-20], kind)[0] == 400


def test_targets_that_are_said_twice_in_an_address_are_two(client):
    status, _, answer = client.ask("/v1/explain?targets=2&targets=ship", PNGS[0])
    assert status == 200, answer
    assert [one["class"] for one in json.loads(answer)["targets"]] == [2, 3]


def test_requests_at_once_have_their_own_answers(client, explainer):
    """Pictures and targets of many clients meet in the same runs."""
    wanted = {
        (i, label): explainer(PICTURES[i], [label]).to_dict()["images"][0]["targets"][0]
        for i in range(4)
        for label in LABELS
    }
    found = {}

    def ask(i, label):
        found[i, label] = json.loads(client.ask(f"/v1/explain?targets={label}", PNGS[i])[2])["targets"][0]

    threads = [threading.Thread(target=ask, args=key) for key in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, one in wanted.items():
        assert found[key] == pytest.approx(one, rel=1e-5), key


# ---- the Open Inference Protocol


def test_tensors_go_through_the_file_as_through_onnx_runtime(client, session):
    x, targets = tensor(3), np.array([[0, -1], [2, -2], [4, 1]])
    names = [value.name for value in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"image": x, "fastcam.targets": targets}), strict=True))
    status, answer = client.json(
        "/v2/models/tiny/infer", {"id": "7", "inputs": [sent("image", x), sent("fastcam.targets", targets)]}
    )
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (200, "7", "tiny", "1")
    found = got(answer)
    assert set(found) == set(names)
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-7)
    status, answer = client.json(
        "/v2/models/tiny/versions/1/infer", {"inputs": [sent("image", x)], "outputs": [{"name": "fastcam.classes"}]}
    )
    assert [one["name"] for one in answer["outputs"]] == ["fastcam.classes"]


def test_tensors_as_bytes(client, session):
    x = tensor(2)
    about = IMAGE | {"shape": [2, 3, 32, 32], "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [about], "parameters": {"binary_data_output": True}}).encode()
    length = {"inference-header-content-length": str(len(head))}
    status, headers, body = client.ask("/v2/models/tiny/infer", head + x.tobytes(), length)
    assert status == 200
    size = int(headers["inference-header-content-length"])
    answer, tail = json.loads(body[:size]), body[size:]
    names = [value.name for value in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"image": x}), strict=True))
    at = 0
    for one in answer["outputs"]:
        many = one["parameters"]["binary_data_size"]
        dtype = {"FP32": np.float32, "INT64": np.int64}[one["datatype"]]
        found = np.frombuffer(tail[at : at + many], dtype).reshape(one["shape"])
        np.testing.assert_allclose(found, wanted[one["name"]], rtol=1e-6, atol=1e-7)
        at += many
    assert at == len(tail)


@pytest.mark.parametrize("raw", [False, True])
def test_encoded_pictures_are_explained(client, explainer, raw):
    wanted = explainer(PICTURES[:2], ["dog", -1], method="layercam")
    about = {"name": "image", "shape": [2], "datatype": "BYTES"}
    said = {"targets": ["dog", -1], "method": "layercam"}
    if not raw:  # JSON holds no bytes: the tensor of the file takes them then
        status, answer = client.json("/v2/models/tiny/infer", {"inputs": [about | {"data": ["a", "b"]}]})
        assert status == 400 and "picture" in answer["error"]
        return
    content = b"".join(struct.pack("<I", len(one)) + one for one in PNGS[:2])
    about["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": [about], "parameters": said}).encode()
    length = {"inference-header-content-length": str(len(head))}
    status, _, body = client.ask("/v2/models/tiny/infer", head + content, length)
    found = got(json.loads(body))
    assert status == 200
    for name in ("classes", "maps", "boxes"):
        np.testing.assert_allclose(found[f"fastcam.{name}"], getattr(wanted, name), rtol=1e-5, atol=1e-6)
    assert found["fastcam.status"].tolist() == [list(row) for row in wanted.status]


def test_parameters_explain_a_tensor(client, explainer):
    x = tensor(2)
    wanted = explainer(x, [1, 3], method="hirescam")
    request = {"inputs": [sent("image", x)], "parameters": {"targets": [1, 3], "method": "hirescam"},
               "outputs": [{"name": "fastcam.heatmaps"}, {"name": "fastcam.maps"}]}  # fmt: skip
    found = got(client.json("/v2/models/tiny/infer", request)[1])
    np.testing.assert_allclose(found["fastcam.maps"], wanted.maps, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["fastcam.heatmaps"], wanted.heatmaps, rtol=1e-5, atol=1e-6)


def test_what_is_served_says_so(client):
    assert client.json("/v2")[1]["name"] == "fastcam"
    assert client.json("/v2/health/live") == (200, {"live": True})
    assert client.json("/v2/health/ready") == (200, {"ready": True})
    about = client.json("/v2/models/tiny")[1]
    assert about["versions"] == ["1"] and about["inputs"][0] == {
        "name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32],
    }  # fmt: skip
    assert "hirescam" in about["parameters"]["fastcam"]["methods"]
    assert client.json("/v2/models/tiny/ready") == (200, {"name": "tiny", "ready": True})
    assert client.json("/v1/models") == (200, {"models": ["tiny"]})
    assert client.ask("/v1/explain", PNGS[0])[0] == 200
    assert b'fastcam_maps_total{model="tiny",status="ok"}' in client.ask("/metrics")[2]
    paths = client.json("/openapi.json")[1]["paths"]
    assert "/v1/explain" in paths and "/v2/models/{model}/infer" in paths
    assert b"<!doctype html>" in client.ask("/")[2]


# ---- KServe's v1 protocol


def test_v1_predicts_and_explains(client, explainer):
    body = {"instances": [{"b64": base64.b64encode(one).decode()} for one in PNGS[:2]]}
    scores = explainer.predict(PICTURES[:2]).scores
    _, answer = client.json("/v1/models/tiny:predict", body)
    for row, one in zip(scores, answer["predictions"], strict=True):
        assert [best["class"] for best in one["classes"]] == np.argsort(-row).tolist()[:5]
        np.testing.assert_allclose([best["score"] for best in one["classes"]], -np.sort(-row)[:5], rtol=1e-5)
    _, answer = client.json("/v1/models/tiny:explain", body | {"parameters": {"targets": ["tree"]}})
    wanted = explainer(PICTURES[:2], ["tree"]).to_dict()["images"]
    for one, other in zip(answer["explanations"], wanted, strict=True):
        assert one["targets"][0] == pytest.approx(other["targets"][0], rel=1e-5)


# ---- wrong requests

SHORT = IMAGE | {"parameters": {"binary_data_size": 9}}
ZEROS = IMAGE | {"data": [0] * 3072}


def asking(classes):
    """The input of targets."""
    return {"name": "fastcam.targets", "datatype": "INT64", "shape": list(np.shape(classes)), "data": classes}


ONE = {"b64": base64.b64encode(PNGS[0]).decode()}
WRONG = {
    "no picture": ("/v1/explain", b"no picture", 400),
    "an empty body": ("/v1/explain", b"", 400),
    "a path for a picture": ("/v1/explain", b"/etc/passwd", 400),
    "no such class": ("/v1/explain?targets=unicorn", PNGS[0], 400),
    "no such method": ("/v1/explain?method=magic", PNGS[0], 400),
    "no such parameter": ("/v1/explain?color=red", PNGS[0], 400),
    "a threshold of nothing": ("/v1/explain?threshold=nan", PNGS[0], 400),
    "a threshold twice": ("/v1/explain?threshold=0.3&threshold=0.5", PNGS[0], 400),
    "half a neighbour": ("/v1/explain?connectivity=4.5", PNGS[0], 400),
    "no number of neighbours": ("/v1/explain?connectivity=nan", PNGS[0], 400),
    "endless neighbours": ("/v1/explain?connectivity=inf", PNGS[0], 400),
    "a method without a name": ("/v1/explain?method=", PNGS[0], 400),
    "too many targets": ("/v1/explain?targets=0,1,2,3,4", PNGS[0], 400),
    "too many pixels": ("/v1/explain", png(np.zeros((1001, 1000, 3), np.uint8)), 400),
    "too many bytes": ("/v1/explain", bytes((1 << 20) + 1), 413),
    "no such model": ("/v1/explain?model=other", PNGS[0], 404),
    "no such route": ("/v3/explain", PNGS[0], 404),
    "no JSON": ("/v2/models/tiny/infer", b"{", 400),
    "JSON that is deep": ("/v2/models/tiny/infer", b"[" * 100_000, 400),
    "a list": ("/v2/models/tiny/infer", b"[]", 400),
    "no inputs": ("/v2/models/tiny/infer", b"{}", 400),
    "an unknown type": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"datatype": "FP8", "data": [1]}]}, 400),
    "a type that is a list": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"datatype": [1], "data": [1]}]}, 400),
    "too few numbers": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": [1.0]}]}, 400),
    "a shape of nothing": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"shape": [-1], "data": [1.0]}]}, 400),
    "a huge shape": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"shape": [1 << 62, 4], "data": []}]}, 400),
    "words for numbers": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": ["x"] * 3072}]}, 400),
    "nothing for numbers": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": [None] * 3072}]}, 400),
    "truths for numbers": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": [True] * 3072}]}, 400),
    "numbers in words": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": ["1"] * 3072}]}, 400),
    "numbers that are too large": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"data": [1e39] * 3072}]}, 400),
    "a class that is no whole number": ("/v2/models/tiny/infer", {"inputs": [ZEROS, asking([[1.5]])]}, 400),
    "too many targets in a tensor": ("/v2/models/tiny/infer", {"inputs": [ZEROS, asking([[0] * 5])]}, 400),
    "targets in a tensor and parameters": (
        "/v2/models/tiny/infer", {"inputs": [ZEROS, asking([[0]])], "parameters": {"threshold": 0.3}}, 400),
    "too many images in a tensor": (
        "/v2/models/tiny/infer", {"inputs": [IMAGE | {"shape": [4, 3, 32, 32], "data": [0] * 4 * 3072}]}, 400),
    "perhaps a prediction": ("/v2/models/tiny/infer", {"inputs": [ZEROS], "parameters": {"predict": "true"}}, 400),
    "perhaps bytes": ("/v2/models/tiny/infer", {"inputs": [ZEROS], "parameters": {"binary_data_output": 1}}, 400),
    "the best classes in words": (
        "/v2/models/tiny/infer",
        {"inputs": [ZEROS], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]}, 400),
    "an answer in shared memory": (
        "/v2/models/tiny/infer",
        {"inputs": [ZEROS], "outputs": [{"name": "scores", "parameters": {"shared_memory_region": "a"}}]}, 400),
    "another input": ("/v2/models/tiny/infer", {"inputs": [IMAGE | {"name": "audio", "data": [0.0] * 3072}]}, 400),
    "bytes that are not there": ("/v2/models/tiny/infer", {"inputs": [SHORT]}, 400),
    "no such version": ("/v2/models/tiny/versions/9/infer", {"inputs": [IMAGE | {"data": [0.0] * 3072}]}, 404),
    "no instances": ("/v1/models/tiny:explain", {}, 400),
    "too many instances": ("/v1/models/tiny:explain", {"instances": [{"b64": ""}] * 4}, 400),
    "no base64": ("/v1/models/tiny:explain", {"instances": [{"b64": "%%"}]}, 400),
    "options that are a list": ("/v1/models/tiny:explain", {"instances": [ONE], "parameters": {"options": [1]}}, 400),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_request_gets_one_line(client, kind):
    path, body, wanted = WRONG[kind]
    status, _, answer = client.ask(path, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert status == wanted, answer
    said = json.loads(answer)["error"]
    assert said and "\n" not in said and "Traceback" not in said
    assert "cam.onnx" not in said, "where files lie is nobody's business"
    assert client.ask("/v1/explain", PNGS[0])[0] == 200, "the next request is answered"


METHODS = {
    "/v1/explain": ("GET", "POST"),
    "/v1/models/tiny:explain": ("GET", "POST"),
    "/v2/models/tiny/infer": ("PUT", "POST"),
    "/v2/health/live": ("POST", "GET, HEAD"),
    "/metrics": ("OPTIONS", "GET, HEAD"),
    "/": ("DELETE", "GET, HEAD"),
}


@pytest.mark.parametrize("route", METHODS)
def test_another_method_than_a_routes_own_is_refused_like_any_other_error(client, route):
    """RFC 9110, 15.5.6: the answer says in Allow which there are."""
    method, allowed = METHODS[route]
    request = urllib.request.Request(f"http://127.0.0.1:{client.port}{route}", b"" if method == "PUT" else None)
    request.get_method = lambda: method
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    answer = refused.value
    assert answer.code == 405 and answer.headers["allow"] == allowed
    assert answer.headers["content-type"] == "application/json" and method in json.loads(answer.read())["error"]


def test_a_head_is_answered_where_a_get_is(client):
    request = urllib.request.Request(f"http://127.0.0.1:{client.port}/v2/health/live", method="HEAD")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200 and answer.read() == b""


def test_an_unknown_path_of_any_length_is_one_short_line(client):
    status, _, answer = client.ask("/" + "a" * 5000, b"x")
    assert status == 404 and len(json.loads(answer)["error"]) < 300


PACKED = {
    "a body that is what it says": (gzip.compress(PNGS[0]), "gzip", 200),
    "the other encoding": (zlib.compress(PNGS[0]), "deflate", 200),
    "one that grows above what is taken": (gzip.compress(bytes(1 << 24)), "gzip", 413),
    "one that is cut short": (gzip.compress(PNGS[0])[:-9], "gzip", 400),
    "one with more behind it": (gzip.compress(PNGS[0]) + b"more", "gzip", 400),
    "none": (PNGS[0], "gzip", 400),
    "an unknown encoding": (PNGS[0], "br", 400),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_compressed_body(client, kind):
    body, encoding, wanted = PACKED[kind]
    status, _, answer = client.ask("/v1/explain", body, {"content-encoding": encoding})
    assert status == wanted and (wanted == 200 or "error" in json.loads(answer))


def test_a_key_is_asked_for(path):
    with listening(server(path, keys=("secret", "other")).app) as client:
        assert client.ask("/v2/health/ready")[0] == 200
        assert client.ask("/v1/explain", PNGS[0])[0] == 401
        assert client.ask("/v1/explain", PNGS[0], {"authorization": "Bearer wrong"})[0] == 401
        assert client.ask("/v1/explain", PNGS[0], {"authorization": "Bearer other"})[0] == 200
        assert client.ask("/v1/explain", PNGS[0], {"x-api-key": "secret"})[0] == 200


def test_one_request_more_than_may_wait_comes_again_later(path):
    served = server(path, Limits(waiting=1))
    begun, go = threading.Event(), threading.Event()
    model = served.repository.get()
    steps_of = model.explainer.steps

    def slow(asks):
        begun.set()
        assert go.wait(30)
        return steps_of(asks)

    model.explainer.steps = slow
    with listening(served.app) as client:
        first = threading.Thread(target=client.ask, args=("/v1/explain", PNGS[0]))
        first.start()
        assert begun.wait(30)
        status, headers, _ = client.ask("/v1/explain", PNGS[0])
        assert (status, headers["retry-after"]) == (429, "1")
        assert client.ask("/v2/health/live")[0] == 200
        go.set()
        first.join()
        assert client.ask("/v1/explain", PNGS[0])[0] == 200


def test_an_answer_that_is_not_there_in_time(path):
    with listening(server(path, Limits(seconds=0.000001)).app) as client:
        assert client.ask("/v1/explain", PNGS[0])[0] == 504
