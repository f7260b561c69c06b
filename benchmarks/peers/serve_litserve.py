"""LitServe with batching, as its documentation shows it.

It makes a FastAPI route of the annotations of `decode_request` and `encode_response`; without them it reads the body
itself, which is faster.
"""

from __future__ import annotations

import sys

import litserve
from core import MAX_BATCH, WORKERS, Painter


class Peer(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.painter = Painter()

    def decode_request(self, request):  # noqa: ANN001, ANN201
        return request["seed"]

    def batch(self, inputs: list[int]) -> list[int]:
        return inputs

    def predict(self, x: list[int]) -> list[str]:
        return self.painter.paint(x)

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output):  # noqa: ANN001, ANN201
        return {"b64_json": output}


if __name__ == "__main__":
    api = Peer(max_batch_size=MAX_BATCH, batch_timeout=0.0, api_path="/generate")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
