"""Triton's own clients, unchanged: what they say over HTTP and gRPC is understood, and they understand the answers."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest

from fastcam import Explainer
from support.servers.live_server import listening
from support.servers.served_model import PICTURES, PNGS, server, tensor, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: nothing was asked")
pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed: nothing was asked")
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from fastcam.serving.grpc.server import GrpcServer
from fastcam.serving.limits import Limits

LIBRARIES = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def addresses(path):
    """Of each protocol."""
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    served = server(path, Limits(), beside=[GrpcServer("127.0.0.1", 0, told=told).serving])
    with listening(served.app) as http:
        assert there.wait(60)
        yield {"http": f"127.0.0.1:{http.port}", "grpc": f"127.0.0.1:{ports[0]}"}


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


@pytest.fixture
def client(library, addresses):
    with library.InferenceServerClient(addresses[library.__name__.split(".")[1]]) as opened:
        yield opened


def given(library, name, array, datatype="FP32", **how):
    tensor = library.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **how)
    return tensor


def test_health_and_metadata(client, library):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("other")
    about = client.get_model_metadata("tiny")
    name = about["name"] if isinstance(about, dict) else about.name
    shape = about["inputs"][0]["shape"] if isinstance(about, dict) else list(about.inputs[0].shape)
    assert (name, shape) == ("tiny", [-1, 3, 32, 32])
    assert "fastcam" in str(client.get_server_metadata())


def test_tensors_come_back_as_from_onnx_runtime(client, library, path):
    x, targets = tensor(3), np.array([[0, -1], [2, -2], [4, 1]])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"image": x, "fastcam.targets": targets}), strict=True))
    inputs = [given(library, "image", x), given(library, "fastcam.targets", targets, "INT64")]
    asked = [library.InferRequestedOutput(name) for name in names]
    for outputs in (None, asked):
        answer = client.infer("tiny", inputs, outputs=outputs, request_id="42")
        for name in names:
            np.testing.assert_allclose(answer.as_numpy(name), wanted[name], rtol=1e-6, atol=1e-7)
    response = answer.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "42"


def test_numbers_in_json(addresses, path):
    """The HTTP client says by ``binary_data`` how tensors travel."""
    x = tensor(1)
    with httpclient.InferenceServerClient(addresses["http"]) as client:
        inputs = [given(httpclient, "image", x, binary_data=False)]
        outputs = [httpclient.InferRequestedOutput("fastcam.classes", binary_data=False)]
        answer = client.infer("tiny", inputs, outputs=outputs)
        with httpclient.InferenceServerClient(addresses["http"]) as other:
            same = other.infer("tiny", [given(httpclient, "image", x)])
    assert answer.as_numpy("fastcam.classes").tolist() == same.as_numpy("fastcam.classes").tolist()


def test_parameters_choose_targets_method_and_threshold(client, library, path):
    explainer = Explainer(path)
    wanted = explainer(PICTURES[:2], ["dog", -1], 0.4, method="layercam")
    pictures = given(library, "image", np.array(PNGS[:2], object), "BYTES")
    said = {"targets": "dog,-1", "method": "layercam", "threshold": 0.4}
    names = [f"fastcam.{name}" for name in ("classes", "maps", "boxes", "status", "heatmaps")]
    outputs = [library.InferRequestedOutput(name) for name in names]
    answer = client.infer("tiny", [pictures], outputs=outputs, parameters=said)
    for name in ("classes", "maps", "boxes", "heatmaps"):
        np.testing.assert_allclose(
            answer.as_numpy(f"fastcam.{name}"), getattr(wanted, name), rtol=1e-5, atol=1e-6, err_msg=name
        )
    assert answer.as_numpy("fastcam.status").tolist() == [[word.encode() for word in row] for row in wanted.status]


def test_requests_at_once(addresses, library, path):
    """Each client's thread has its own answers."""
    explainer = Explainer(path)
    wanted = [explainer(picture, ["ship"]).maps for picture in PICTURES]
    found, at = {}, addresses[library.__name__.split(".")[1]]

    def ask(i):
        with library.InferenceServerClient(at) as own:
            pictures = given(library, "image", np.array([PNGS[i]], object), "BYTES")
            found[i] = own.infer("tiny", [pictures], parameters={"targets": "ship"}).as_numpy("fastcam.maps")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(4):
        np.testing.assert_allclose(found[i], wanted[i], rtol=1e-5, atol=1e-6)


def test_an_error_is_the_servers_line(client, library):
    with pytest.raises(InferenceServerException, match="unicorn"):
        client.infer("tiny", [given(library, "image", tensor(1))], parameters={"targets": "unicorn"})
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("other", [given(library, "image", tensor(1))])


def test_a_mistyped_parameter_is_refused_and_one_of_others_passes(client, library):
    x = given(library, "image", tensor(1))
    with pytest.raises(InferenceServerException, match="no parameter 'treshold'; the nearest is 'threshold'"):
        client.infer("tiny", [x], parameters={"treshold": "0.5"})
    assert client.infer("tiny", [x], parameters={"tenant": "us"}).as_numpy("fastcam.classes") is not None


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_a_compressed_request(addresses, how, path):
    x = tensor(1)
    with httpclient.InferenceServerClient(addresses["http"]) as client:
        plain = client.infer("tiny", [given(httpclient, "image", x)])
        packed = client.infer("tiny", [given(httpclient, "image", x)], request_compression_algorithm=how,
                              response_compression_algorithm=how)  # fmt: skip
    np.testing.assert_array_equal(plain.as_numpy("fastcam.classes"), packed.as_numpy("fastcam.classes"))
