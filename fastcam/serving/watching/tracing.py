"""Where a request's time goes, for OpenTelemetry: the request, and below it decode, queue, run and draw."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastcam.errors import FastcamError

EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
)  # fmt: skip
"""Packages that send traces by OTLP, the first that is installed."""


class Span:
    """A request on its way."""

    trace = ""
    """By which its log lines and its trace find each other."""

    def ended(self, status: str | int, failed: bool) -> None:
        """It has its answer.

        Args:
            status: of HTTP or gRPC.
            failed: whether the fault is the server's.
        """


class Spans:
    """Spans that nobody asked for: nothing is recorded."""

    @contextmanager
    def request(self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[Span]:
        """A request, below the trace that its client says.

        Args:
            name: of the route.
            carrier: headers.
            attributes: of the span.
        """
        yield Span()

    def record(self, name: str, begun: int, ended: int, **attributes: Any) -> None:
        """A step that is over, below the request of this thread.

        Args:
            begun, ended: by ``time.time_ns()``.
        """

    @contextmanager
    def step(self, name: str, **attributes: Any) -> Iterator[None]:
        """A step that lasts as long as the context."""
        begun = time.time_ns()
        try:
            yield
        finally:
            self.record(name, begun, time.time_ns(), **attributes)

    def close(self) -> None:
        """Send what is still to be sent."""


class OpenTelemetry(Spans):
    """Spans for a provider of OpenTelemetry.

    Args:
        provider: a ``TracerProvider``; None: the one that the process has, or one that sends by OTLP, as the
            environment says (``OTEL_EXPORTER_OTLP_ENDPOINT`` and the others).

    Raises:
        FastcamError: OpenTelemetry's packages are not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError as error:
            raise _missing(error) from error
        self._trace, self._propagate = trace, propagate
        self._own = None
        if provider is None:
            provider = trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider):  # nobody has set one
                provider = self._own = _by_otlp()
        self._tracer = provider.get_tracer("fastcam")

    @contextmanager
    def request(self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[Span]:
        context = self._propagate.extract(carrier)
        how: Any = {"context": context, "kind": self._trace.SpanKind.SERVER, "attributes": dict(attributes)}
        with self._tracer.start_as_current_span(name, **how) as span:
            yield _Request(span, self._trace)

    def record(self, name: str, begun: int, ended: int, **attributes: Any) -> None:
        self._tracer.start_span(name, start_time=begun, attributes=attributes).end(ended)

    def close(self) -> None:
        if self._own is not None:
            self._own.shutdown()


class _Request(Span):
    def __init__(self, span: Any, trace: Any) -> None:
        self._span, self._module = span, trace
        self.trace = trace.format_trace_id(span.get_span_context().trace_id)

    def ended(self, status: str | int, failed: bool) -> None:
        kind = "http" if isinstance(status, int) else "rpc"
        self._span.set_attribute(f"{kind}.response.status_code", status)
        if failed:
            self._span.set_status(self._module.Status(self._module.StatusCode.ERROR))


def _by_otlp() -> Any:
    """A provider that sends spans by OTLP."""
    from importlib import import_module

    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _missing(error) from error
    failed: ImportError | None = None
    for name in EXPORTERS:
        try:
            exporter = import_module(name).OTLPSpanExporter()
            break
        except ImportError as error:
            failed = error
    else:
        assert failed is not None
        raise _missing(failed) from failed
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "fastcam"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _missing(error: ImportError) -> FastcamError:
    return FastcamError(f"tracing needs more packages ({error}); run: pip install fastcam[serve,tracing]")
