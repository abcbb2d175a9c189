"""KServe's SDK: ``python kserve_server.py MODEL PORT THREADS``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import kserve
import numpy as np
from plain_model import Plain


class Model(kserve.Model):  # type: ignore[misc]
    """The v1 protocol; the work goes to a thread, so that the event loop goes on."""

    def __init__(self) -> None:
        super().__init__("plain")
        self.model = Plain(sys.argv[1], int(sys.argv[3]))
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return await asyncio.to_thread(self._predicted, payload)

    def _predicted(self, payload: Any) -> Any:
        batch = np.stack([self.model.prepared(one["b64"]) for one in payload["instances"]])
        return {"predictions": [{"classes": self.model.best(row)} for row in self.model.run(batch)]}


if __name__ == "__main__":
    kserve.ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1, enable_latency_logging=False).start(
        [Model()]
    )
