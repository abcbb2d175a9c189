"""Over gRPC a file answers as over HTTP: the same outputs, limits, keys and times, and one line for what is wrong."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import onnxruntime
import pytest

from fastcam import Explainer
from support.servers.certificates import of_localhost
from support.servers.live_server import listening
from support.servers.served_model import LIMITS, PICTURES, PNGS, server, tensor, tiny_file

pytest.importorskip("starlette", reason="the extra serve is not installed: nothing was served")
pytest.importorskip("grpc", reason="grpcio is not installed: nothing was served over gRPC")
import grpc

from fastcam.serving.grpc.messages import ENUMS, FIELDS, MESSAGES, METHODS, POOL
from fastcam.serving.grpc.server import GrpcServer, Tls
from fastcam.serving.limits import Limits


class Caller:
    """Calls by the messages alone, on a channel."""

    def __init__(self, channel):
        self.channel = channel

    def __call__(self, name, /, timeout=60, metadata=None, **fields):
        method = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            MESSAGES[f"{name}Request"].SerializeToString,
            MESSAGES[f"{name}Response"].FromString,
        )
        return method(MESSAGES[f"{name}Request"](**fields), timeout=timeout, metadata=metadata)

    def refused(self, name, /, **more):
        """Code and line of an error."""
        with pytest.raises(grpc.RpcError) as raised:
            self(name, **more)
        return raised.value.code().name, raised.value.details()


@contextmanager
def spoken(path, limits=LIMITS, keys=(), tls=None, channel=grpc.insecure_channel):
    """The service at a free port."""
    ports, there = [], threading.Event()

    def told(port):
        ports.append(port)
        there.set()

    served = server(path, limits, keys, beside=[GrpcServer("127.0.0.1", 0, tls, told=told).serving])
    with listening(served.app) as http:
        assert there.wait(60)
        with channel(f"localhost:{ports[0]}") as opened:
            yield served, Caller(opened), http


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_file(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def call(path):
    with spoken(path) as (_, caller, _):
        yield caller


@pytest.fixture(scope="module")
def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def image(x):
    return {"name": "image", "datatype": "FP32", "shape": x.shape}


def got(response):
    """The tensors of an answer."""
    kinds = {"FP32": np.float32, "INT64": np.int64}
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {one.name: np.frombuffer(raw, kinds[one.datatype]).reshape(one.shape) for one, raw in pairs}


SOME = ("ModelConfig", "ModelInput", "ModelOutput", "ModelDynamicBatching", "ModelStatistics", "InferBatchStatistics")
"""Messages of which the server says a part."""


def test_the_messages_are_the_published_ones():
    """Beside the code that protoc generated for Triton's client."""
    published = pytest.importorskip("tritonclient.grpc", reason="no tritonclient here: nothing to compare with")
    file = published.service_pb2.DESCRIPTOR
    for name in FIELDS:
        ours = POOL.FindMessageTypeByName(f"inference.{name}")
        theirs = file.pool.FindMessageTypeByName(f"inference.{name}")
        known = {field.number: field for field in theirs.fields}
        for field in ours.fields:
            other = known.pop(field.number)
            of_type = [one.message_type and one.message_type.full_name for one in (field, other)]
            of_oneof = [one.containing_oneof and one.containing_oneof.name for one in (field, other)]
            assert (field.name, field.type, field.is_repeated) == (other.name, other.type, other.is_repeated)
            assert of_type[0] == of_type[1] and of_oneof[0] == of_oneof[1]
        assert not known or name in SOME, f"{name} has more fields"
    words = published.model_config_pb2.DataType.items()
    assert [*enumerate(ENUMS["DataType"])] == sorted((number, word) for word, number in words)
    service = file.services_by_name["GRPCInferenceService"]
    for name in METHODS:
        method = service.methods_by_name[name]
        assert (method.input_type.name, method.output_type.name) == (f"{name}Request", f"{name}Response")


def test_what_is_served_says_so(call):
    assert call("ServerLive").live and call("ServerReady").ready
    assert call("ModelReady", name="tiny").ready and call("ModelReady", name="tiny", version="1").ready
    assert not call("ModelReady", name="other").ready and not call("ModelReady", name="tiny", version="7").ready
    assert call("ServerMetadata").name == "fastcam"
    about = call("ModelMetadata", name="tiny")
    assert (about.name, list(about.versions), about.inputs[0].name) == ("tiny", ["1"], "image")
    assert (about.inputs[0].datatype, list(about.inputs[0].shape)) == ("FP32", [-1, 3, 32, 32])


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_go_through_the_file_as_through_onnx_runtime(call, session, raw):
    x, targets = tensor(2), np.array([[0, -1], [4, 1]])
    names = [value.name for value in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"image": x, "fastcam.targets": targets}), strict=True))
    about = {"name": "fastcam.targets", "datatype": "INT64", "shape": targets.shape}
    if raw:
        sent = {"inputs": [image(x), about], "raw_input_contents": [x.tobytes(), targets.tobytes()]}
    else:
        sent = {"inputs": [image(x) | {"contents": {"fp32_contents": x.ravel()}},
                           about | {"contents": {"int64_contents": targets.ravel()}}]}  # fmt: skip
    response = call("ModelInfer", model_name="tiny", id="7", **sent)
    assert (response.id, response.model_name, response.model_version) == ("7", "tiny", "1")
    found = got(response)
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-7)
    response = call("ModelInfer", model_name="tiny", model_version="1", outputs=[{"name": "fastcam.classes"}], **sent)
    assert [one.name for one in response.outputs] == ["fastcam.classes"]


def test_encoded_pictures_are_explained(call, path):
    wanted = Explainer(path)(PICTURES[:2], ["dog", -1], 0.4, method="layercam")
    response = call(
        "ModelInfer",
        model_name="tiny",
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": PNGS[:2]}}],
        parameters={"targets": {"string_param": "dog,-1"}, "method": {"string_param": "layercam"},
                    "threshold": {"double_param": 0.4}},
        outputs=[{"name": f"fastcam.{name}"} for name in ("classes", "maps", "boxes")],
    )  # fmt: skip
    found = got(response)
    for name in ("classes", "maps", "boxes"):
        np.testing.assert_allclose(found[f"fastcam.{name}"], getattr(wanted, name), rtol=1e-5, atol=1e-6)


def test_a_class_whose_name_has_a_comma_is_asked_by_a_list_in_json(call, path):
    """A parameter of gRPC is one text."""
    sent = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": PNGS[:1]}}]}
    asking = {"targets": {"string_param": '["dog", "crane, a bird"]'}}
    with pytest.raises(grpc.RpcError, match=r"no class .crane, a bird"):
        call("ModelInfer", model_name="tiny", parameters=asking, **sent)


X = tensor(1)
GOOD = {"model_name": "tiny", "inputs": [image(X)], "raw_input_contents": [X.tobytes()]}
WRONG = {
    "no such model": (GOOD | {"model_name": "other"}, "NOT_FOUND"),
    "no such version": (GOOD | {"model_version": "9"}, "NOT_FOUND"),
    "no inputs": ({"model_name": "tiny"}, "INVALID_ARGUMENT"),
    "an unknown type": (GOOD | {"inputs": [image(X) | {"datatype": "FP8"}]}, "INVALID_ARGUMENT"),
    "a shape of nothing": (GOOD | {"inputs": [image(X) | {"shape": [-1]}]}, "INVALID_ARGUMENT"),
    "too few bytes": (GOOD | {"raw_input_contents": [b"1234"]}, "INVALID_ARGUMENT"),
    "bytes without an input": (GOOD | {"raw_input_contents": [b"1234", b""]}, "INVALID_ARGUMENT"),
    "no values": ({"model_name": "tiny", "inputs": [image(X)]}, "INVALID_ARGUMENT"),
    "half floats as numbers": (
        {"model_name": "tiny", "inputs": [image(X) | {"datatype": "FP16"}]}, "INVALID_ARGUMENT"),
    "a value that its type has not": (
        {"model_name": "tiny", "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1],
                                           "contents": {"uint_contents": [300]}}]}, "INVALID_ARGUMENT"),
    "no such output": (GOOD | {"outputs": [{"name": "nothing"}]}, "INVALID_ARGUMENT"),
    "half a neighbour": (GOOD | {"parameters": {"connectivity": {"double_param": 4.5}}}, "INVALID_ARGUMENT"),
    "perhaps a prediction": (GOOD | {"parameters": {"predict": {"string_param": "true"}}}, "INVALID_ARGUMENT"),
    "the best classes in words": (
        GOOD | {"outputs": [{"name": "scores", "parameters": {"classification": {"int64_param": 2}}}]},
        "INVALID_ARGUMENT"),
    "a parameter without a value": (GOOD | {"parameters": {"method": {}}}, "INVALID_ARGUMENT"),
    "no such class": (GOOD | {"parameters": {"targets": {"string_param": "unicorn"}}}, "INVALID_ARGUMENT"),
    "too many bytes": (
        GOOD | {"raw_input_contents": [bytes(1 << 20)]}, "RESOURCE_EXHAUSTED"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_request_gets_one_line(call, kind):
    fields, wanted = WRONG[kind]
    code, said = call.refused("ModelInfer", **fields)
    assert code == wanted, said
    assert said and "\n" not in said and "Traceback" not in said
    assert call("ModelInfer", **GOOD).outputs, "the next request is answered"


def test_a_key_is_asked_for_and_limits_hold_for_both_protocols_together(path):
    with spoken(path, Limits(waiting=1), keys=("secret",)) as (served, call, http):
        key = (("authorization", "Bearer secret"),)
        assert call("ServerReady").ready
        assert call.refused("ModelInfer", **GOOD)[0] == "UNAUTHENTICATED"
        assert call.refused("ModelInfer", metadata=(("authorization", "Bearer no"),), **GOOD)[0] == "UNAUTHENTICATED"
        assert call("ModelInfer", metadata=(("x-api-key", "secret"),), **GOOD).outputs
        begun, go = threading.Event(), threading.Event()
        model = served.repository.get()
        run = model.explainer.run

        def slow(*given):
            begun.set()
            assert go.wait(30)
            return run(*given)

        model.explainer.run = slow
        first = threading.Thread(target=call, args=("ModelInfer",), kwargs={"metadata": key, **GOOD})
        first.start()
        assert begun.wait(30)
        assert call.refused("ModelInfer", metadata=key, **GOOD)[0] == "RESOURCE_EXHAUSTED"
        assert http.ask("/v1/explain", PNGS[0], {"x-api-key": "secret"})[0] == 429
        assert call("ServerLive").live
        go.set()
        first.join()
        assert call("ModelInfer", metadata=key, **GOOD).outputs
        text = http.ask("/metrics", headers={"x-api-key": "secret"})[2].decode()
        assert 'fastcam_requests_total{route="grpc:ModelInfer",status="RESOURCE_EXHAUSTED"} 1.0' in text


def test_a_run_whose_clients_time_is_over_is_not_started(path):
    """The client says its deadline; the batcher has it."""
    with spoken(path) as (served, call, _):
        model = served.repository.get()
        seen = []
        infer = model.infer

        def told(feed, names, until):
            seen.append(until)
            return infer(feed, names, 0.0 if len(seen) > 1 else until)

        model.infer = told
        assert call("ModelInfer", timeout=5, **GOOD).outputs
        code, said = call.refused("ModelInfer", timeout=15, **GOOD)
        assert code == "DEADLINE_EXCEEDED" and "not there in time" in said
        assert seen[1] - seen[0] == pytest.approx(10, abs=5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Key and certificate of localhost, PEM."""
    key, pem = of_localhost(tmp_path_factory.mktemp("tls"))
    return key.read_bytes(), pem.read_bytes()


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(path, certificate, mutual):
    key, pem = certificate

    def channel(own):
        credentials = grpc.ssl_channel_credentials(pem, *((key, pem) if own else ()))
        return lambda address: grpc.secure_channel(address, credentials)

    tls = Tls(key, pem, pem if mutual else None)
    with spoken(path, tls=tls, channel=channel(own=mutual)) as (_, call, _):
        assert call("ServerLive").live
    if mutual:
        with spoken(path, tls=tls, channel=channel(own=False)) as (_, call, _):
            assert call.refused("ServerLive", timeout=10)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
