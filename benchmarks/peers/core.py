"""The work of one answer, the same for every server: a seed in, a PNG in base64 out.

It is written against numpy, onnxruntime and zlib-ng alone, so that it runs in every peer's environment; the PNG
encoder is the product's own file. What is left to differ is the server around it. `BENCH_MODEL` names the model folder.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

MAX_BATCH = 32
"""The largest batch that any server may form, the product's default."""
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))

Pixels = NDArray[np.uint8]
_PNG = Path(__file__).parents[2] / "service/brigantine/png.py"


def _encoder() -> Callable[[Pixels], bytes]:
    spec = importlib.util.spec_from_file_location("png", _PNG)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.encode_png


class Painter:
    """The model and its encoder. May be called from several threads at once."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(os.environ["BENCH_MODEL"])
        manifest = json.loads((folder / "manifest.json").read_bytes())
        inputs = {spec["name"]: spec for spec in manifest["inputs"]}
        self._z_dim: int = inputs["z"]["shape"][1]
        self._labels = len(manifest.get("labels", ())) if "label" in inputs else 0
        self._session = _session(folder / "model.onnx")
        self._encode = _encoder()

    def paint(self, seeds: Sequence[int]) -> list[str]:
        """One PNG in base64 for each seed."""
        return [base64.b64encode(self._encode(pixels)).decode() for pixels in self.pixels(seeds)]

    def pixels(self, seeds: Sequence[int]) -> Pixels:
        """uint8 [N, H, W, C], drawn in one batch."""
        rows = [self._latent(int(seed)) for seed in seeds]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}  # each [N, ...]
        return cast("list[Pixels]", self._session.run(["image"], batch))[0]

    def _latent(self, seed: int) -> dict[str, Any]:
        """As the product's image plugin draws it."""
        rng = np.random.Generator(np.random.Philox(seed))
        row: dict[str, Any] = {"z": rng.standard_normal(self._z_dim, dtype=np.float32)}  # [z_dim]
        if self._labels:
            row["label"] = np.asarray(rng.integers(self._labels), dtype=np.int64)  # []
        return row


def _session(graph: Path) -> Any:
    """As the product opens it on a CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
