"""One process of a server: models loaded, protocols spoken, until it is told to end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcam import cache
from fastcam.errors import FastcamError
from fastcam.explainer import Explainer
from fastcam.runtime.profile import MOST_SESSIONS, chosen, cores
from fastcam.runtime.providers import CPU, Settings
from fastcam.serving.grpc.server import GrpcServer, Tls
from fastcam.serving.limits import Limits
from fastcam.serving.model import ServedModel
from fastcam.serving.repository import Place, Repository
from fastcam.serving.service import Service
from fastcam.serving.watching.drift import Reference
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import OpenTelemetry, Spans

if TYPE_CHECKING:
    from fastcam.runtime.profile import Goal

KEEP_ALIVE = 5
"""Seconds that a connection may be silent between two requests."""
BATCH = 8
"""Pictures of a run at most, where nothing says more."""
SMALL = 64 << 20
"""Bytes of a file that is opened once more for many clients. Of larger ones that would take much memory, and their runs
lose little by waiting threads."""
BACKLOG = 1024
"""Connections that wait to be taken."""


@dataclass(frozen=True)
class GrpcAddress:
    """Where gRPC is spoken; see :class:`fastcam.serving.grpc.server.GrpcServer`."""

    host: str
    port: int
    tls: Tls | None = None
    shared: bool = False


@dataclass(frozen=True)
class Process:
    """What a process of a server needs, so that several can be alike.

    Attributes:
        sources: exported files, and folders of them.
        limits: of requests.
        keys: one of which a client must send.
        providers, threads, profile, goal: see :class:`fastcam.Explainer`.
        batch_size: pictures of a run at most; None is the profile's, or 8.
        delay: see :class:`fastcam.serving.model.ServedModel`.
        tls: of HTTP, as uvicorn calls it.
        grpc: where gRPC is spoken; None: nowhere.
        json_log: whether logs are lines of JSON.
        trace: whether spans are sent.
        references: by name of a model, the table of ``fastcam batch`` with which its maps are compared.
    """

    sources: tuple[Path, ...]
    limits: Limits
    keys: tuple[str, ...] = ()
    providers: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    delay: float = 0.002
    tls: Mapping[str, Any] = field(default_factory=dict)
    grpc: GrpcAddress | None = None
    json_log: bool = False
    trace: bool = False
    references: Mapping[str, Path] = field(default_factory=dict)
    profile: str = "none"
    goal: Goal = "throughput"

    def serve(self, listening: Sequence[socket.socket], told: Callable[[str], None], ready: Callable[[], None]) -> None:
        """Load the models and answer, until SIGTERM or SIGINT; what is under way then is answered still.

        Args:
            listening: where HTTP is spoken.
            told: is told a line about models.
            ready: is called when all of them are loaded and requests are answered.

        Raises:
            FastcamError: a model that cannot be loaded, or packages that are missing.
        """
        try:
            import uvicorn

            from fastcam.serving.http import Server
            from fastcam.serving.processes.early_refusals import BusyProtocol
            from fastcam.serving.processes.greetings import TlsServer
            from fastcam.serving.processes.open_connections import Places, provide_files
        except ImportError as error:
            raise FastcamError(f"a server needs more packages ({error}); run: pip install fastcam[serve]") from error

        provide_files(self.limits.connections * (1 if self.grpc is None else 2))
        spans = OpenTelemetry() if self.trace else Spans()
        metrics = Metrics({name: Reference(table) for name, table in self.references.items()})
        repository = self.repository(metrics, spans, told)
        for name in sorted(set(self.references) - set(repository.models)):
            told(f"--reference {name}: no such model is served, so that nothing is compared with the table")

        @asynccontextmanager
        async def announced(service: Service) -> AsyncIterator[None]:
            ready()
            yield

        beside = [] if self.grpc is None else [GrpcServer(**vars(self.grpc)).serving]
        beside.append(announced)
        server = Server(repository, self.limits, metrics, self.keys, beside=beside, spans=spans)
        places = Places(self.limits.connections, partial(server.service.refused_early, 503))
        how: dict[str, Any] = {"http": partial(BusyProtocol, server.service, places), "ws": "none"}
        how |= {"log_config": None} if self.json_log else {}
        config = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks by which way a client came
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(self.limits.seconds) + 1,
            backlog=BACKLOG,
            **how,
            **self.tls,
        )
        (TlsServer(config, places) if self.tls else uvicorn.Server(config)).run([*listening])

    def repository(self, metrics: Metrics, spans: Spans, told: Callable[[str], None]) -> Repository:
        """The models, loaded.

        Raises:
            FastcamError: one that cannot be.
        """
        return Repository(self.sources, partial(self._load, metrics, spans), told)

    def _load(self, metrics: Metrics, spans: Spans, place: Place) -> ServedModel:
        settings = Settings(spinning="run")  # threads that spin behind a run keep others from its answer
        choice = chosen(self.profile, place.path, self.goal, self.providers)
        size = BATCH if self.batch_size is None and choice is None else self.batch_size
        how: Any = {"batch_size": size, "settings": settings, "max_pixels": self.limits.pixels, "profile": choice}
        explainer = Explainer(place.path, self.providers, self.threads, **how)
        observe, saw = partial(metrics.observe, place.name), partial(metrics.saw, place.name)
        crowd = None if choice is not None else self._crowd(place.path, explainer, how)
        of_batches = explainer.batch_size, self.delay, observe, spans, saw, crowd
        model = ServedModel(place.name, place.version, explainer, self.limits, *of_batches)
        model.warm()
        return model

    def _crowd(self, path: Path, explainer: Explainer, how: Mapping[str, Any]) -> Explainer | None:
        """The file once more, for runs of one thread beside each other; None where that would not pay."""
        threads = self.threads or cores()
        if explainer.providers != (CPU,) or explainer.fixed_batch or not 1 < threads <= MOST_SESSIONS:
            return None
        if path.stat().st_size > SMALL or cache.has_external_data(path.read_bytes()):
            return None
        several = replace(how["settings"], sessions=threads)
        return Explainer(path, self.providers, 1, **{**how, "settings": several})
