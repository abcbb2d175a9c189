"""LitServe: ``python litserve_server.py MODEL PORT THREADS BATCH``."""

import sys
from typing import Any

import litserve
from plain_model import Plain


class Api(litserve.LitAPI):  # type: ignore[misc]
    """A picture a request; LitServe makes batches of them."""

    def setup(self, device: str) -> None:
        self.model = Plain(sys.argv[1], int(sys.argv[3]))

    def decode_request(self, request: dict[str, Any]) -> Any:
        return self.model.prepared(request["instances"][0]["b64"])

    def predict(self, batch: Any) -> Any:
        return self.model.run(batch)

    def encode_response(self, output: Any) -> Any:
        return {"predictions": [{"classes": self.model.best(output)}]}


if __name__ == "__main__":
    api = Api(max_batch_size=int(sys.argv[4]), batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
