"""The gRPC service: the same models, limits and batches as over HTTP, in the same event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcam.errors import FastcamError, shown
from fastcam.serving import open_inference, triton_extensions
from fastcam.serving.bodies.tensors import (
    BY_DTYPE,
    DATATYPES,
    checked_shape,
    checked_type,
    from_bytes,
    of_texts,
    to_bytes,
)
from fastcam.serving.errors import Gone, Left, NotAllowed, NotInTime, NotServed, TooLarge, TooMany
from fastcam.serving.model import ServedModel
from fastcam.serving.service import FAILED, Service, said_of

STATUS: dict[type[Exception], str] = {
    NotAllowed: "UNAUTHENTICATED", NotServed: "NOT_FOUND", TooLarge: "RESOURCE_EXHAUSTED",
    TooMany: "RESOURCE_EXHAUSTED", Gone: "UNAVAILABLE", NotInTime: "DEADLINE_EXCEEDED",
    Left: "CANCELLED", FastcamError: "INVALID_ARGUMENT",
}  # fmt: skip
"""gRPC's codes by kind of error; the first that fits."""
OPEN = ("ServerLive", "ServerReady")
"""Methods that need no key: who watches the server calls them."""
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where a tensor lies that does not come as bytes, by its type; FP16 comes as bytes alone."""
STREAMS = 128
"""Requests at once on a connection; more wait in the client."""
AGE = 600.0
"""Seconds of a connection, so that one whose requests never come to an end is closed one day; clients connect again."""
IDLE, GREETING = 60.0, 10.0
"""Seconds of a connection without a request, and until it has said that it speaks HTTP/2: its place is for others."""


def refuse_missing() -> None:
    """Raise a line where gRPC or protobuf is not installed."""
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401
    except ImportError as error:
        raise FastcamError(f"gRPC needs more packages ({error}); run: pip install fastcam[serve]") from error


@dataclass(frozen=True)
class Tls:
    """PEM, each.

    Attributes:
        key, certificate: the server's.
        client_ca: whose certificates clients must have; None: they need none.
    """

    key: bytes
    certificate: bytes
    client_ca: bytes | None = None


@dataclass(frozen=True)
class GrpcServer:
    """Where the service listens.

    Attributes:
        host, port: 0 takes a free port.
        tls: None is without.
        shared: whether processes share the port.
        told: is told the port.
    """

    host: str
    port: int
    tls: Tls | None = None
    shared: bool = False
    told: Callable[[int], None] = lambda port: None

    @asynccontextmanager
    async def serving(self, service: Service) -> AsyncIterator[None]:
        """The service at its port, as long as the context lasts; its end waits for what is under way.

        Raises:
            FastcamError: gRPC is not installed, or the port cannot be had.
        """
        refuse_missing()
        import grpc

        from fastcam.serving.grpc.health import of_health
        from fastcam.serving.grpc.messages import HEALTH, METHODS, SERVICE

        limits = service.limits
        options = {
            "grpc.max_receive_message_length": int(limits.body),
            "grpc.max_send_message_length": -1,
            "grpc.max_concurrent_streams": STREAMS,
            "grpc.max_allowed_incoming_connections": int(limits.connections),
            "grpc.max_connection_idle_ms": int(IDLE * 1000),
            "grpc.server_handshake_timeout_ms": int(GREETING * 1000),
            "grpc.max_connection_age_ms": int(AGE * 1000),
            "grpc.max_connection_age_grace_ms": int(limits.seconds * 1000),
            "grpc.so_reuseport": int(self.shared),
        }
        server = grpc.aio.server(options=[*options.items()])
        handlers = Handlers(service)
        methods = {name: handlers.of(name) for name in METHODS}
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(SERVICE, methods),
                grpc.method_handlers_generic_handler(HEALTH, of_health(service)),
            ]
        )
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        try:
            if self.tls is None:
                port = server.add_insecure_port(address)
            else:
                pair = [(self.tls.key, self.tls.certificate)]
                ca = self.tls.client_ca
                port = server.add_secure_port(address, grpc.ssl_server_credentials(pair, ca, ca is not None))
        except RuntimeError as error:
            raise FastcamError(f"cannot listen for gRPC at {address}; choose another --grpc-port") from error
        await server.start()
        self.told(port)
        try:
            yield
        finally:
            await server.stop(limits.seconds)


class Handlers:
    """The methods of the service.

    Args:
        service: see :class:`fastcam.serving.service.Service`.
    """

    def __init__(self, service: Service) -> None:
        from fastcam.serving.grpc.messages import MESSAGES

        self._service, self._messages = service, MESSAGES
        self._calls: Mapping[str, Callable[[Any, float], Awaitable[Any]]] = {
            "ServerLive": self._live, "ServerReady": self._ready, "ModelReady": self._model_ready,
            "ServerMetadata": self._server, "ModelMetadata": self._model, "ModelInfer": self._infer,
            "ModelConfig": self._config, "ModelStatistics": self._statistics,
        }  # fmt: skip

    def of(self, name: str) -> Any:
        """What gRPC calls of a method: with its key, its time, its error and its count."""
        import grpc

        from fastcam.serving.grpc.messages import SERVICE

        call, seconds = self._calls[name], self._service.limits.seconds
        of_span = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": name}

        async def endpoint(request: Any, context: Any) -> Any:
            left = context.time_remaining()
            until = time.monotonic() + min(seconds, seconds if left is None else left)
            carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            code, line, response = "OK", FAILED, None
            with self._service.counted(f"grpc:{name}", f"{SERVICE}/{name}", carrier, of_span) as said:
                try:
                    if name not in OPEN:
                        self._service.check_key(carrier.get("authorization") or carrier.get("x-api-key", ""))
                    response = await call(request, until)
                except Exception as error:
                    code = next((code for kind, code in STATUS.items() if isinstance(error, kind)), "INTERNAL")
                    line = said_of(error, 500 if code == "INTERNAL" else 400)
                said(code, code in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"))
            if response is None:
                await context.abort(getattr(grpc.StatusCode, code), line)
            return response

        request, response = self._messages[f"{name}Request"], self._messages[f"{name}Response"]
        return grpc.unary_unary_rpc_method_handler(endpoint, request.FromString, response.SerializeToString)

    # ---- methods

    async def _live(self, request: Any, until: float) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _ready(self, request: Any, until: float) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._service.ready)

    async def _model_ready(self, request: Any, until: float) -> Any:
        try:
            self._service.repository.get(request.name, request.version or None)
        except NotServed:
            return self._messages["ModelReadyResponse"](ready=False)
        return self._messages["ModelReadyResponse"](ready=self._service.ready)

    async def _server(self, request: Any, until: float) -> Any:
        return self._messages["ServerMetadataResponse"](**open_inference.server_metadata())

    async def _model(self, request: Any, until: float) -> Any:
        model = self._service.repository.get(request.name, request.version or None)
        about = open_inference.model_metadata(model, sorted(self._service.repository.models[model.name], key=int))
        about.pop("parameters")
        return self._messages["ModelMetadataResponse"](**about)

    async def _config(self, request: Any, until: float) -> Any:
        model = self._service.repository.get(request.name, request.version or None)
        return self._messages["ModelConfigResponse"](config=triton_extensions.config(model))

    async def _statistics(self, request: Any, until: float) -> Any:
        said = triton_extensions.statistics(self._service.repository, request.name, request.version)
        return self._messages["ModelStatisticsResponse"](**said)

    async def _infer(self, request: Any, until: float) -> Any:
        return await self._service.work(self._inferred, request, until)

    def _inferred(self, request: Any, until: float) -> Any:
        feed = inputs(request)
        parameters = {name: _parameter(name, value) for name, value in request.parameters.items()}
        names = [one.name for one in request.outputs]
        for one in request.outputs:
            open_inference.refuse_unserved(one.name, one.parameters)

        def answer(model: ServedModel) -> Any:
            found, said = open_inference.answer(model, feed, parameters, names, until, self._service.kept)
            with model.statistics.step("compute_output"):
                response = self._messages["ModelInferResponse"](
                    model_name=model.name, model_version=model.version, id=request.id
                )
                for name, text in said.items():
                    response.parameters[name].string_param = text
                for name, value in found.items():
                    array = np.asarray(value)
                    response.outputs.add(name=name, datatype=BY_DTYPE.get(array.dtype, "BYTES"), shape=array.shape)
                    response.raw_output_contents.append(to_bytes(array))
            return response

        return self._service.with_model(request.model_name, request.model_version or None, answer)


def inputs(request: Any) -> dict[str, NDArray[Any]]:
    """The tensors of a request by name, which come all as bytes or all as numbers.

    Raises:
        FastcamError: values that do not fit what is said of them.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise FastcamError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs; send one for each")
    feed: dict[str, NDArray[Any]] = {}
    for i, one in enumerate(request.inputs):
        name = one.name
        if not name or name in feed:
            raise FastcamError("an input has no name, or one that another has; give each its own")
        datatype, shape = checked_type(one.datatype, name), checked_shape([*one.shape], name)
        feed[name] = from_bytes(raw[i], datatype, shape, name) if raw else _typed(one.contents, datatype, shape, name)
    return feed


def _typed(contents: Any, datatype: str, shape: list[int], name: str) -> NDArray[Any]:
    if datatype not in CONTENTS:
        raise FastcamError(f"input {shown(repr(name))}: {datatype} comes in raw_input_contents alone; send it so")
    values = getattr(contents, CONTENTS[datatype])
    if len(values) != int(np.prod(shape, dtype=object)):
        raise FastcamError(f"input {shown(repr(name))}: {len(values)} values of {datatype} for shape {shape}; send as "
                           "many")  # fmt: skip
    if datatype == "BYTES":
        return of_texts([*values]).reshape(shape)
    try:
        return np.array(values, DATATYPES[datatype]).reshape(shape)
    except OverflowError as error:
        raise FastcamError(f"input {shown(repr(name))}: a value is no {datatype}; send others") from error


def _parameter(name: str, value: Any) -> Any:
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise FastcamError(f"parameter {shown(repr(name))} has no value; give one")
    return getattr(value, kind)
