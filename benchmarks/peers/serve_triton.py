"""Triton with its dynamic batcher, through PyTriton; the wheel ships the Python backend only."""

from __future__ import annotations

import signal
import sys

import numpy as np
from core import MAX_BATCH, WORKERS, Painter
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

painter = Painter()


@batch
def infer(seed: np.ndarray) -> list[np.ndarray]:
    painted = painter.paint(seed.ravel().tolist())
    return [np.array([picture.encode() for picture in painted], dtype=object)[:, None]]


def main() -> None:
    http_port, grpc_port = map(int, sys.argv[1:3])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="image",
            infer_func=[infer] * WORKERS,
            inputs=[Tensor(name="seed", dtype=np.int64, shape=(1,))],
            outputs=[Tensor(name="b64_json", dtype=bytes, shape=(1,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)
            ),
        )
        signal.signal(signal.SIGTERM, lambda *_: triton.stop())
        triton.serve()


if __name__ == "__main__":
    main()
