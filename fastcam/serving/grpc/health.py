"""gRPC's own health service, which balancers and Kubernetes ask; it needs no key.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from fastcam.serving.grpc.messages import MESSAGES, SERVICE
from fastcam.serving.service import Service

KNOWN = ("", SERVICE)
"""What it says something of: the server as a whole, and the service that answers."""
LOOK = 0.25
"""Seconds between two looks at whether something has changed."""


def of_health(service: Service) -> dict[str, Any]:
    """What gRPC calls of each method."""
    request, response = MESSAGES["HealthCheckRequest"], MESSAGES["HealthCheckResponse"]

    def status() -> Any:
        return response(status="SERVING" if service.ready else "NOT_SERVING")

    async def check(asked: Any, context: Any) -> Any:
        if asked.service not in KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no such service; there is {SERVICE}")
        return status()

    async def watch(asked: Any, context: Any) -> AsyncIterator[Any]:
        """Says how it is, and each change; the end of the server ends it."""
        last = None
        while not service.draining:
            now = status() if asked.service in KNOWN else response(status="SERVICE_UNKNOWN")
            if now != last:
                last = now
                yield now
            await asyncio.sleep(LOOK)
        if asked.service in KNOWN:
            yield status()

    how = {"request_deserializer": request.FromString, "response_serializer": response.SerializeToString}
    return {
        "Check": grpc.unary_unary_rpc_method_handler(check, **how),
        "Watch": grpc.unary_stream_rpc_method_handler(watch, **how),
    }
