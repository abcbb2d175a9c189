"""The protocols over HTTP: who may ask, how much, and what an error looks like."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

from fastcam.errors import FastcamError, shown
from fastcam.results.explanation import Explanation
from fastcam.runtime.session import one_line
from fastcam.serving import open_inference, plain, triton_extensions
from fastcam.serving.bodies.compressed import unpacked
from fastcam.serving.bodies.messages import (
    encode,
    joined,
    picture_of,
    read_json,
    respond,
    respond_json,
    respond_mixed,
    take_shown,
)
from fastcam.serving.errors import Gone, Left, NotAllowed, NotInTime, NotServed, TooLarge, TooMany, WrongMethod
from fastcam.serving.limits import RATE, Limits
from fastcam.serving.model import NO_SPANS, ServedModel
from fastcam.serving.openapi import document
from fastcam.serving.repository import Repository
from fastcam.serving.service import LOG, Service, said_of
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import Spans

STATUS: dict[type[Exception], int] = {
    NotAllowed: 401, NotServed: 404, WrongMethod: 405, TooLarge: 413, TooMany: 429, Left: 499, Gone: 503,
    NotInTime: 504, FastcamError: 400,
}  # fmt: skip
"""Codes by kind of error; the first that fits. 499 is nginx's, and nobody reads it but logs and metrics."""
HEADER = "inference-header-content-length"
"""How many bytes of a body are JSON, where tensors follow it."""
OPEN = ("/v2/health/live", "/v2/health/ready")
"""Routes that need no key: who watches the server asks them."""
PATIENCE = 5.0
"""Seconds in which nothing of a body need come; behind them it must come at its rate."""
NOWHERE = "nowhere"
"""The route, in metrics and logs, of whoever asks for one that there is not."""
EVERY = 1.0
"""Seconds between two looks at the folders."""

T = TypeVar("T")
Handler: TypeAlias = Callable[[Any, float], Awaitable[Any]]


@dataclass(frozen=True)
class _Application:
    """An ASGI application as an object: a function would get starlette's layers around it."""

    call: Callable[..., Awaitable[None]]

    def __call__(self, *asgi: Any) -> Awaitable[None]:
        return self.call(*asgi)


@dataclass(eq=False)
class Server:
    """The ASGI application of a repository.

    Attributes:
        repository: what is served.
        limits: of requests.
        metrics: what is counted.
        keys: one of which a client must send; empty: anybody may ask.
        watch: whether folders are looked at again.
        beside: what runs in the same event loop as long as the application does, such as other protocols.
        spans: record requests and their steps.
    """

    repository: Repository
    limits: Limits
    metrics: Metrics
    keys: tuple[str, ...] = ()
    watch: bool = True
    beside: Sequence[Callable[[Service], AbstractAsyncContextManager[None]]] = ()

    spans: Spans = NO_SPANS

    def __post_init__(self) -> None:
        self.service = Service(self.repository, self.limits, self.metrics, self.keys, self.spans)

    @property
    def app(self) -> Any:
        """For an ASGI server.

        Raises:
            FastcamError: the packages of a server are not installed.
        """
        try:
            from starlette.routing import Route, Router
        except ImportError as error:
            raise FastcamError(f"a server needs more packages ({error}); run: pip install fastcam[serve]") from error

        def route(path: str, handler: Handler, method: str = "GET") -> Any:
            return Route(path, self._endpoint(path, handler, method), methods=None, name=path)

        predict = partial(plain.predict_v1, keep=self.service.kept.add)
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes = [  # each is tried until one fits: those that are asked most come first
            route("/v1/explain", self._explain, "POST"),
            *(route(f"{prefix}/infer", self._infer, "POST") for prefix in (model, version)),
            route("/v1/models/{model}:predict", partial(self._v1, predict), "POST"),
            route("/v1/models/{model}:explain", partial(self._v1, plain.explain_v1), "POST"),
            route("/", self._page),
            route("/openapi.json", self._openapi),
            route("/metrics", self._metrics),
            route("/v2", self._server),
            route("/v2/health/live", self._live),
            route("/v2/health/ready", self._ready),
            *(route(f"{prefix}/ready", self._model_ready) for prefix in (model, version)),
            *(route(f"{prefix}/config", self._config) for prefix in (model, version)),
            *(route(f"{prefix}/stats", self._statistics) for prefix in ("/v2/models", model, version)),
            *(route(prefix, self._model) for prefix in (model, version)),
            route("/v1/explain/{id}", self._explain_later),
            route("/v1/models", self._list_v1),
            route("/v1/models/{model}", self._ready_v1),
        ]
        nowhere = self._endpoint(NOWHERE, self._nowhere)
        # errors become answers below, so no middleware is needed
        return Router(routes, default=nowhere, lifespan=self._lifespan)

    # ---- around every request

    def _endpoint(self, path: str, handler: Handler, method: str = "") -> Any:
        """A handler with its key, its method, its time, its error and its count, as an ASGI application."""
        from starlette.requests import Request

        methods = (method, "HEAD") if method == "GET" else (method,) if method else ()

        async def endpoint(scope: Any, receive: Any, send: Any) -> None:
            request = Request(scope, receive)
            until = time.monotonic() + self.limits.seconds
            attributes = {"http.request.method": request.method, "http.route": path}
            with self.service.counted(path, f"{request.method} {path}", request.headers, attributes) as said:
                try:
                    if path not in OPEN:
                        self._check_key(request)
                    if methods and request.method not in methods:
                        raise WrongMethod(f"{path} is asked by {method}, not by {shown(request.method)}")
                    response = await handler(request, until)
                except Exception as error:
                    response = self._failure(error, methods)
                said(response.status_code, response.status_code >= 500)
            await response(scope, receive, send)

        return _Application(endpoint)

    def _check_key(self, request: Any) -> None:
        self.service.check_key(request.headers.get("authorization") or request.headers.get("x-api-key", ""))

    def _failure(self, error: Exception, methods: Sequence[str]) -> Any:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        headers = {"retry-after": "1"} if status in (429, 503, 504) else {}
        headers |= {"connection": "close"} if status == 504 else {}  # the rest of a body is not waited for
        headers |= {"allow": ", ".join(methods)} if status == 405 else {}
        headers |= {"www-authenticate": "Bearer"} if status == 401 else {}
        return respond_json({"error": said_of(error, status)}, status, headers)

    async def _body(self, request: Any, until: float) -> bytes:
        """The body, as far as it may be long and take time."""
        self.service.refuse_more()
        most = self.limits.body
        promised = request.headers.get("content-length", "0")
        if promised.isascii() and promised.isdigit() and int(promised[:20]) > most:
            raise TooLarge(f"the body has {promised[:20]} bytes; at most {most} are taken")

        from starlette.requests import ClientDisconnect

        async def whole() -> bytes:
            parts: list[bytes] = []
            size, begun, stream = 0, time.monotonic(), request.stream()
            with self.service.receiving() as more:
                while (
                    part := await _within(min(until, begun + PATIENCE + size / RATE), anext(stream, None))
                ) is not None:
                    size += len(part)
                    if size > most:
                        raise TooLarge(f"the body has more than the {most} bytes that are taken")
                    more(len(part))
                    parts.append(part)
            return b"".join(parts)

        try:
            body = await whole()
        except ClientDisconnect as error:
            raise Left("the client has left") from error
        except asyncio.TimeoutError as error:
            raise NotInTime("the body did not come in time; send it faster") from error
        return unpacked(body, request.headers.get("content-encoding", "identity"), most)

    async def _work(self, request: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        """A call in a thread; what it has queued is not run where the client leaves."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        return await self.service.work(call, *arguments, gone=gone)

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watch()) if self.watch else None
        try:
            async with AsyncExitStack() as stack:
                for beside in self.beside:
                    await stack.enter_async_context(beside(self.service))
                yield
                self.service.drain()
        finally:
            if watching is not None:
                watching.cancel()
            self.service.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(self.repository.look)
            except Exception as error:  # a folder that cannot be read for a moment
                LOG.warning("models were not looked for: %s", one_line(error))

    # ---- routes

    def _named(self, path: Mapping[str, str]) -> ServedModel:
        return self.repository.get(path["model"], path.get("version"))

    async def _nowhere(self, request: Any, until: float) -> Any:
        raise NotServed(f"there is no {shown(repr(request.url.path))}; GET /openapi.json lists the routes")

    async def _live(self, request: Any, until: float) -> Any:
        return respond_json({"live": True})

    async def _ready(self, request: Any, until: float) -> Any:
        ready = self.service.ready
        return respond_json({"ready": ready}, 200 if ready else 503)

    async def _server(self, request: Any, until: float) -> Any:
        return respond_json(open_inference.server_metadata())

    async def _model(self, request: Any, until: float) -> Any:
        model = self._named(request.path_params)
        return respond_json(open_inference.model_metadata(model, sorted(self.repository.models[model.name], key=int)))

    async def _model_ready(self, request: Any, until: float) -> Any:
        model = self._named(request.path_params)
        return respond_json({"name": model.name, "ready": self.service.ready})

    async def _config(self, request: Any, until: float) -> Any:
        return respond_json(triton_extensions.config(self._named(request.path_params)))

    async def _statistics(self, request: Any, until: float) -> Any:
        path = request.path_params
        return respond_json(
            triton_extensions.statistics(self.repository, path.get("model", ""), path.get("version", ""))
        )

    async def _list_v1(self, request: Any, until: float) -> Any:
        return respond_json({"models": sorted(self.repository.models)})

    async def _ready_v1(self, request: Any, until: float) -> Any:
        model = self._named(request.path_params)
        return respond_json({"name": model.name, "ready": self.service.ready})

    async def _infer(self, request: Any, until: float) -> Any:
        body, length = await self._body(request, until), request.headers.get(HEADER)
        return await self._work(request, self._inferred, request.path_params, body, length, until)

    def _inferred(self, path: Mapping[str, str], body: bytes, length: str | None, until: float) -> Any:
        size = len(body)
        if length is not None:
            if not (length.isascii() and length.isdigit()) or int(length[:20]) > size:
                raise FastcamError(f"{HEADER} is {length[:20]!r}; give how many bytes of the body are JSON")
            size = int(length)
        said = read_json(body[:size])
        reply = self.service.with_model(
            path["model"],
            path.get("version"),
            lambda model: open_inference.infer(model, said, body[size:], until, self.service.kept),
        )
        if not reply.binary:
            return respond_json(reply.body)
        head = encode(reply.body)
        return respond(b"".join([head, *reply.binary]), "application/octet-stream", {HEADER: str(len(head))})

    async def _v1(
        self, call: Callable[[ServedModel, Mapping[str, Any], float], dict[str, Any]], request: Any, until: float
    ) -> Any:
        body = await self._body(request, until)
        return await self._work(request, self._answered_v1, call, request.path_params["model"], body, until)

    def _answered_v1(self, call: Any, name: str, body: bytes, until: float) -> Any:
        said = read_json(body)
        answer = self.service.with_model(name, None, lambda model: call(model, said, until))
        return respond_json(answer)

    async def _explain(self, request: Any, until: float) -> Any:
        body = await self._body(request, until)
        return await self._work(request, self._explained, request, body, until)

    def _explained(self, request: Any, body: bytes, until: float) -> Any:
        """One picture: JSON, a PNG, or both, as the client accepts."""
        said: dict[str, Any] = joined(request.query_params.multi_items())
        picture, fields = picture_of(body, request.headers.get("content-type", ""))
        said |= fields
        name, version, shows = said.pop("model", None), said.pop("version", None), take_shown(said)
        accept = request.headers.get("accept", "*/*")

        def answer(model: ServedModel) -> Any:
            (found,) = plain.explain(model, [picture], said, until)
            return self._shown(model, found, shows, accept)

        return self.service.with_model(name, version, answer)

    async def _explain_later(self, request: Any, until: float) -> Any:
        return await self._work(request, self._explained_later, request, until)

    def _explained_later(self, request: Any, until: float) -> Any:
        said: dict[str, Any] = joined(request.query_params.multi_items())
        shows, accept = take_shown(said), request.headers.get("accept", "*/*")
        model, prediction = self.service.kept.get(request.path_params["id"])

        def answer(model: ServedModel) -> Any:
            return self._shown(model, plain.explain_later(model, prediction, said, until), shows, accept)

        return self.service.with_this(model, answer)

    def _shown(self, model: ServedModel, found: Explanation, shows: str, accept: str) -> Any:
        with self.service.spans.step("draw"), model.statistics.step("compute_output"):
            about = plain.described(model, found)
            if "multipart/mixed" in accept:
                overlays = [plain.png(found, shows, target) for target in range(found.asked(0))]
                return respond_mixed(encode(about), overlays)
            if "image/png" in accept:
                return respond(plain.png(found, shows), "image/png")
            return respond_json(about)

    async def _metrics(self, request: Any, until: float) -> Any:
        await self.service.all_counted()
        return respond(self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, request: Any, until: float) -> Any:
        return respond_json(document(sorted(self.repository.models)))

    async def _page(self, request: Any, until: float) -> Any:
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob:; "
        policy += "connect-src 'self'"
        page = files("fastcam.serving").joinpath("page/index.html").read_bytes()
        return respond(page, "text/html; charset=utf-8", {"content-security-policy": policy})


async def _within(until: float, coming: Awaitable[T]) -> T:
    """What comes until then; without a task of its own, which takes a tenth of a millisecond, where Python has that.

    Raises:
        asyncio.TimeoutError: it did not.
    """
    left = max(0.0, until - time.monotonic())
    if sys.version_info < (3, 11):
        return await asyncio.wait_for(coming, left)
    async with asyncio.timeout(left):
        return await coming
