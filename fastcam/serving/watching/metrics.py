"""What Prometheus reads of a server: counts and times, never anything of a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fastcam.errors import FastcamError
from fastcam.results.explanation import Explanation
from fastcam.serving.watching.drift import EVERY, Reference, figures_of

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
SHARES = tuple(number / 10 for number in range(1, 10))


class Metrics:
    """A registry of its own, so that two servers in a process count apart.

    Where ``PROMETHEUS_MULTIPROC_DIR`` names a folder, processes that share it are counted together.

    Args:
        references: by name of the model, what its maps are compared with.

    Raises:
        FastcamError: the library ``prometheus_client`` is not installed.
    """

    def __init__(self, references: Mapping[str, Reference] | None = None) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise FastcamError(f"a server needs more packages ({error}); run: pip install fastcam[serve]") from error
        self._library: Any = prometheus_client
        self.registry: Any = prometheus_client.CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests: Any = prometheus_client.Counter(
            "fastcam_requests", "Requests by route and status code.", ["route", "status"], **own
        )
        self.latency: Any = prometheus_client.Histogram(
            "fastcam_request_seconds", "From the first byte to the answer.", ["route"], buckets=SECONDS, **own
        )
        self.steps: Any = prometheus_client.Histogram(
            "fastcam_step_seconds", "Of a step of a request.", ["model", "step"], buckets=SECONDS, **own
        )
        self.images: Any = prometheus_client.Histogram(
            "fastcam_run_images", "Pictures that ran together.", ["model"], buckets=IMAGES, **own
        )
        self.maps: Any = prometheus_client.Counter("fastcam_maps", "Maps by status.", ["model", "status"], **own)
        self.heat: Any = prometheus_client.Histogram(
            "fastcam_heat_inside", "Share of a map's heat inside its box.", ["model"], buckets=SHARES, **own
        )
        self.entropy: Any = prometheus_client.Histogram(
            "fastcam_map_entropy", "Entropy of a map, 1 of an even one.", ["model"], buckets=SHARES, **own
        )
        self._references = references or {}
        about = "Population stability index of the last maps; of several processes the largest."
        self.drift: Any = prometheus_client.Gauge(
            "fastcam_drift", about, ["model", "figure"], multiprocess_mode="livemax", **own
        )
        self.waiting: Any = prometheus_client.Gauge(
            "fastcam_requests_under_way", "Requests under way.", multiprocess_mode="livesum", **own
        )

    def observe(self, model: str, what: str, value: float) -> None:
        """A step's seconds, or a run's images."""
        if what == "images":
            self.images.labels(model).observe(value)
        else:
            self.steps.labels(model, what).observe(value)

    def saw(self, model: str, explanation: Explanation) -> None:
        """The maps of one picture."""
        for i in range(len(explanation)):  # of a clip its frames
            for target in range(explanation.asked(i)):
                self._count(model, figures_of(explanation, i, target))

    def _count(self, model: str, seen: Mapping[str, Any]) -> None:
        self.maps.labels(model, seen["status"]).inc()
        for name, histogram in (("heat_inside", self.heat), ("entropy", self.entropy)):
            if name in seen:
                histogram.labels(model).observe(seen[name])
        reference = self._references.get(model)
        if reference is not None and reference.add(seen) % EVERY == 0:
            for figure, psi in reference.indices().items():
                self.drift.labels(model, figure).set(psi)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            from prometheus_client import multiprocess

            registry = self._library.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        body: bytes = self._library.generate_latest(registry)
        return body
