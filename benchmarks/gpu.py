"""The engine alone on a GPU, without HTTP: what each way of running it brings, from one image to a thousand at a time.

    python benchmarks/gpu.py --model plugins/brigantine_image/models/mnist
    python benchmarks/gpu.py --model g256 --home DIR

For each batch size: images/s when ONNX Runtime is simply called, with fixed buffers on the device (IO binding), with
the CUDA graph recorded over them, and with PNG encoding behind that; the bytes that cross the bus; and the share of
what the device does when nothing crosses at all. `--device cpu` runs the same code where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from brigantine.buckets import Buckets
from brigantine.model import Arrays, Model
from brigantine.png import encode_png
from brigantine.session import Session, SessionOptions, runtime

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ROUNDS = 3
_SECONDS = 0.2


class Ways:
    """One model, run in each way."""

    def __init__(self, model: Model, device: str) -> None:
        self.model = model
        self.called = Session(model, _opened(model, device, cuda_graphs=False)._engine)
        self.bound = _buckets(model, device, cuda_graphs=False)
        self.graphed = _buckets(model, device, cuda_graphs=True)

    def row(self, size: int, encoders: ThreadPoolExecutor) -> str:
        """One line of the table."""
        batch = _batch(self.model, size)
        images = self.called.run(batch)["image"]  # uint8 [N, H, W, C]
        on_device = self.graphed.buckets[self.graphed.size_for(size)]
        rates = [
            rate(lambda: self.called.run(batch), size),
            rate(lambda: self.bound.run(batch), size),
            rate(lambda: self.graphed.run(batch), size),
            rate(lambda: list(encoders.map(encode_png, self.graphed.run(batch)["image"])), size),
        ]
        share = rates[2] / rate(on_device.replay, min(size, self.graphed.sizes[-1]))
        bytes_in = sum(values.nbytes for values in batch.values())
        shown = " | ".join(f"{rate:,.0f}" for rate in rates)
        return f"| {size} | {shown} | {bytes_in:,} | {images.nbytes:,} | {share:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a model's folder, or g64 or g256 (these need torch)")
    parser.add_argument(
        "--home", type=Path, default=Path("~/.cache/brigantine-bench"), help="where these are made"
    )
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="the largest batch")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    model = _model(options.model, options.home.expanduser(), options.largest)
    where = card() if options.device == "cuda" else "CPU"
    print(f"`{model.name}`, ONNX Runtime {runtime().__version__}, {where}, images/s, ", end="")
    print(f"medians of {ROUNDS} times {_SECONDS} s\n")
    print("| batch | called | IO binding | CUDA graph | and PNG | bytes in | bytes out | of the device |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    ways = Ways(model, options.device)
    print(f"(batches run as {', '.join(map(str, ways.graphed.sizes))})", file=sys.stderr)
    with ThreadPoolExecutor() as encoders:
        for size in (one for one in SIZES if one <= options.largest):
            print(ways.row(size, encoders), flush=True)


def card() -> str:
    """What nvidia-smi calls the GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def rate(way: Callable[[], object], size: int) -> float:
    """Images/s, the median of some rounds."""
    rates: list[float] = []
    for _ in range(ROUNDS):
        way()
        begin, runs = time.perf_counter(), 0
        while time.perf_counter() - begin < _SECONDS:
            way()
            runs += 1
        rates.append(runs * size / (time.perf_counter() - begin))
    return statistics.median(rates)


def _buckets(model: Model, device: str, cuda_graphs: bool) -> Buckets:
    """Those of a session, or without a GPU the same over its CPU."""
    session = _opened(model, device, cuda_graphs)
    return session._buckets or Buckets(runtime(), session._engine, model, device)


def _opened(model: Model, device: str, cuda_graphs: bool) -> Session:
    where: Any = "auto" if device == "cuda" else "cpu"
    options = SessionOptions(device=where, cuda_graphs=cuda_graphs)
    return Session.open(model, options, require_gpu=device == "cuda")


def _model(name: str, home: Path, largest: int) -> Model:
    """The model, for batches up to `largest` whatever its manifest says."""
    if name in ("g64", "g256"):
        from generators import make  # noqa: PLC0415 - needs torch, which a machine with a GPU may lack

        path = make(name, home / "models" / name)
    else:
        path = Path(name)
    model = Model.open(path)
    return model._replace(manifest=model.manifest.model_copy(update={"max_batch": largest}))


def _batch(model: Model, size: int) -> Arrays:
    rng = np.random.default_rng(size)
    shapes = {spec.name: spec.shape for spec in model.manifest.inputs}
    batch: dict[str, Any] = {
        "z": rng.standard_normal((size, int(shapes["z"][1])), dtype=np.float32)
    }  # [N, Z]
    if "label" in shapes:
        batch["label"] = rng.integers(len(model.manifest.labels), size=size)  # [N]
    return batch


if __name__ == "__main__":
    main()
