"""Ray Serve with `serve.batch`, one replica for each worker."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import ray
from core import MAX_BATCH, WORKERS, Painter
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
class Peer:
    def __init__(self) -> None:
        self.painter = Painter()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def paint(self, seeds: list[int]) -> list[str]:
        return self.painter.paint(seeds)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"b64_json": await self.paint((await request.json())["seed"])}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # "local": a cluster of its own, whatever else runs on this machine.
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    serve.run(Peer.bind(), route_prefix="/generate")
    signal.pause()


if __name__ == "__main__":
    main()
