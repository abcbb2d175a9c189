"""The server as a Ray Serve application: the same handlers, on as many replicas and machines as a cluster has.

Each replica is a whole server, with its own batches, limits and metrics. What a client got an id for is kept by the
replica that answered, so explaining by id needs one replica, or a balancer that sends a client to the same one.

Source of the API: https://docs.ray.io/en/latest/serve/http-guide.html, "Mounting any ASGI app".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastcam.errors import FastcamError
from fastcam.serving.limits import Limits
from fastcam.serving.processes.process import Process
from fastcam.serving.service import LOG
from fastcam.serving.watching.metrics import Metrics
from fastcam.serving.watching.tracing import Spans


def application(
    sources: Sequence[str | Path],
    options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> Any:
    """For ``ray.serve.run``, or as the ``import_path`` of a Serve config.

    Args:
        sources: exported files, and folders of them, where every machine finds them. Folders are not watched: deploy
            again for a new version.
        options: of ``ray.serve.deployment``: num_replicas, autoscaling_config, ray_actor_options ({"num_cpus": 2} or
            {"num_gpus": 0.5}), ... A replica takes as many requests at once as the limits let wait.
        limits: of requests to a replica.
        settings: of :class:`fastcam.serving.processes.process.Process`: keys, providers, threads, batch_size, delay.

    Raises:
        FastcamError: Ray Serve is not installed, or no such setting.
    """
    process = replica(sources, limits or Limits(), **settings)
    try:
        from ray import serve
    except ImportError as error:
        raise FastcamError(f"Ray Serve is not installed ({error}); run: pip install fastcam[serve,ray]") from error

    def build() -> Any:
        return asgi(process)

    given = {"name": "fastcam", "max_ongoing_requests": process.limits.waiting, **(options or {})}
    return serve.deployment(**given)(serve.ingress(build)()).bind()


def replica(sources: Sequence[str | Path], limits: Limits, **settings: Any) -> Process:
    """What each replica serves.

    Raises:
        FastcamError: no model, or no such setting.
    """
    if not sources:
        raise FastcamError("no model; give files that fastcam export has written")
    try:
        return Process(tuple(map(Path, sources)), limits, **settings)
    except TypeError as error:
        raise FastcamError(f"{error}; there are keys, providers, threads, batch_size and delay") from error


def asgi(process: Process) -> Any:
    """The ASGI application of a replica, its models loaded.

    Raises:
        FastcamError: a model cannot be loaded, or packages are missing.
    """
    from fastcam.serving.http import Server

    metrics = Metrics()
    repository = process.repository(metrics, Spans(), LOG.info)
    return Server(repository, process.limits, metrics, process.keys, watch=False).app
