"""What a server logs: lines of JSON for whoever collects them. Nothing of a picture or an address is in them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

ACCESS = logging.getLogger("fastcam.serving.access")
"""A line for each request, at level INFO."""


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time (UTC), level, logger, message, and what its ``fields`` say."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        milliseconds = int(record.msecs)
        about: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            about["exception"] = self.formatException(record.exc_info)
        return json.dumps(about, default=str)


def to_stderr() -> None:
    """All records of this process, from INFO on, go to standard error as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def request(route: str, status: str | int, seconds: float, trace: str) -> None:
    """Log a request that has its answer.

    Args:
        route: as it is named, not as the client has filled it.
        status: of HTTP or gRPC.
        trace: see :attr:`fastcam.serving.watching.tracing.Span.trace`.
    """
    if ACCESS.isEnabledFor(logging.INFO):
        fields = {"route": route, "status": status, "seconds": round(seconds, 6)} | ({"trace": trace} if trace else {})
        ACCESS.info("request", extra={"fields": fields})
