"""Graphs as they are, and with their upsampling layers written anew: `python benchmarks/upsampling.py --home DIR`

Both run in turns, on one thread. Prints a table of models and one of single layers, and how far their outputs differ.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from brigantine.upsampling import rewritten
from generators import make
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from serving import MNIST

BATCHES = (1, 8, 32)
_WINDOW_S = 1.5
_FEWEST, _MOST = 5, 200


class Layer(NamedTuple):
    """A square transposed convolution with a bias, and ReLU behind it."""

    channels: int
    made: int
    side: int
    kernel: int = 4
    stride: int = 2
    pad: int = 1
    added: int = 0

    def __str__(self) -> str:
        way = f"{self.kernel}x{self.kernel}, stride {self.stride}"
        return f"{self.channels} to {self.made} channels, {self.side}x{self.side}, {way}"

    def write(self, path: Path) -> Path:
        rng = np.random.default_rng(0)
        shape = self.channels, self.made, self.kernel, self.kernel
        weight = rng.standard_normal(shape, np.float32) / np.sqrt(self.channels * self.kernel)
        attributes: dict[str, Any] = {
            "strides": [self.stride] * 2,
            "pads": [self.pad] * 4,
            "output_padding": [self.added] * 2,
        }
        nodes = [
            helper.make_node("ConvTranspose", ["x", "weight", "bias"], ["spread"], **attributes),
            helper.make_node("Relu", ["spread"], ["y"]),
        ]
        sizes = ["N", self.channels, self.side, self.side]
        graph = helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", self.made, "H", "W"])],
            [
                numpy_helper.from_array(weight.astype(np.float32), "weight"),
                numpy_helper.from_array(np.zeros(self.made, np.float32), "bias"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path.write_bytes(model.SerializeToString())
        return path


LAYERS = [
    Layer(1024, 512, 4),
    Layer(512, 256, 4),
    Layer(256, 128, 8),
    Layer(128, 64, 16),
    Layer(64, 32, 32),
    Layer(32, 16, 64),
    Layer(128, 64, 7),
    Layer(64, 64, 14),
    Layer(96, 48, 4),
    Layer(128, 64, 8, 3, 2, 1, 1),
    Layer(128, 64, 8, 5, 2, 2, 1),
    Layer(128, 64, 8, 6, 2, 2),
    Layer(64, 64, 16, 3, 1, 1),
    Layer(64, 32, 16, 8, 4, 2),
]


def session(graph: str | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def compared(path: Path) -> str:
    """The cells of one row of a table: for each batch microseconds a row as it is and anew, and how they compare."""
    graph = rewritten(path)
    assert graph is not None, f"{path} has nothing to write anew"
    ways = [session(str(path)), session(graph)]
    cells: list[str] = []
    off = 0.0
    for rows in BATCHES:
        given = {node.name: values(node, rows) for node in ways[0].get_inputs()}
        outputs = [way.run(None, given)[0].astype(float) for way in ways]
        off = max(off, float(np.abs(outputs[0] - outputs[1]).max()))
        times: list[list[float]] = [[], []]
        end = time.perf_counter() + _WINDOW_S
        while len(times[0]) < _FEWEST or (time.perf_counter() < end and len(times[0]) < _MOST):
            for way, taken in zip(ways, times, strict=True):
                begin = time.perf_counter()
                way.run(None, given)
                taken.append(1e6 * (time.perf_counter() - begin) / rows)
        before, after = map(statistics.median, times)
        cells.append(f"{before:.0f}, {after:.0f}, {after / before:.2f}")
    return " | ".join([*cells, f"{off:.1g}"])


def values(node: Any, rows: int) -> NDArray[Any]:
    shape = [rows, *node.shape[1:]]
    if node.type == "tensor(int64)":
        return np.zeros(shape, np.int64)
    return np.random.default_rng(rows).standard_normal(shape, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True, help="where the generators are, or will be")
    home: Path = parser.parse_args().home
    heads = [f"{rows} at a time: us each as it is, anew, share" for rows in BATCHES]
    print("| what | " + " | ".join(heads) + " | off by |\n|" + " --- |" * (len(heads) + 2))
    for name in ("mnist", "g64", "g256"):
        folder = MNIST if name == "mnist" else make(name, home / "models" / name)
        print(f"| `{name}` | {compared(folder / 'model.onnx')} |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for layer in LAYERS:
            print(f"| {layer} | {compared(layer.write(Path(scratch) / 'layer.onnx'))} |", flush=True)


if __name__ == "__main__":
    main()
