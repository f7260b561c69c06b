"""Plain BentoML with its adaptive batcher, as its documentation shows it. A list goes in and a list comes out."""

from __future__ import annotations

import bentoml
from core import MAX_BATCH, WORKERS, Painter


@bentoml.service(
    workers=WORKERS,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class Peer:
    def __init__(self) -> None:
        self.painter = Painter()

    @bentoml.api(route="/generate", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)
    def generate(self, seed: list[int]) -> list[str]:
        return self.painter.paint(seed)
