"""One layer of attention on one thread, as the file has it and as it is written anew, interleaved.

python benchmarks/attention.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from brigantine.attention import attentive
from brigantine.blocks import attending
from onnx import TensorProto, helper, numpy_helper

ROUNDS = 15
LAYERS = 8
"""Whose caches follow each other, as in a model: what one reads has been pushed out of the processor by the others."""
SHAPES = [  # heads, groups, numbers in a head, context, rows, tokens of each row, tokens before them
    (4, 1, 64, 256, 1, 1, 128),
    (4, 1, 64, 256, 8, 1, 128),
    (4, 1, 64, 256, 1, 32, 128),
    (12, 12, 64, 1024, 4, 1, 600),
    (32, 8, 64, 2048, 1, 1, 1500),
    (32, 8, 64, 2048, 1, 32, 1500),
]


def graph(heads: int, groups: int, size: int) -> onnx.ModelProto:
    """x [rows, tokens, 8] to what it attends to: the product before it hardly counts."""

    def value(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    width = (heads + 2 * groups) * size
    weight = np.random.default_rng(0).standard_normal((8, width), dtype=np.float32)
    cache = "rows", groups, "context", size
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["qkv"]),
            helper.make_node(
                "GroupQueryAttention",
                ["qkv", "", "", "past_key", "past_value", "last", "room"],
                ["y", "key", "value"],
                domain="com.microsoft",
                num_heads=heads,
                kv_num_heads=groups,
            ),
        ],
        "attends",
        [
            value("x", TensorProto.FLOAT, "rows", "tokens", 8),
            value("past_key", TensorProto.FLOAT, *cache),
            value("past_value", TensorProto.FLOAT, *cache),
            value("last", TensorProto.INT32, "rows"),
            value("room", TensorProto.INT32),
        ],
        [
            value("y", TensorProto.FLOAT, "rows", "tokens", heads * size),
            value("key", TensorProto.FLOAT, *cache),
            value("value", TensorProto.FLOAT, *cache),
        ],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def bound(source: str | bytes, in_blocks: bool, shape: tuple[int, ...]) -> Callable[[], Any]:
    """A run of it in each of some layers, their caches where they lie."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with attending(in_blocks):
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    bindings = [binding_of(session, shape) for _ in range(LAYERS)]

    def run() -> None:
        for binding in bindings:
            session.run_with_iobinding(binding)

    return run


def binding_of(session: Any, shape: tuple[int, ...]) -> Any:
    _, groups, size, context, rows, tokens, past = shape
    rng = np.random.default_rng(1)
    binding = session.io_binding()
    for name in ("key", "value"):
        cache = ort.OrtValue.ortvalue_from_numpy(
            rng.standard_normal((rows, groups, context, size), dtype=np.float32)
        )
        binding.bind_ortvalue_input(f"past_{name}", cache)
        binding.bind_ortvalue_output(name, cache)
    binding.bind_cpu_input("x", rng.standard_normal((rows, tokens, 8), dtype=np.float32))
    binding.bind_cpu_input("last", np.full(rows, past + tokens - 1, np.int32))
    binding.bind_cpu_input("room", np.asarray(context, np.int32))
    binding.bind_output("y", "cpu")
    return binding


def microseconds(run: Callable[[], Any], times: int = 5) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        run()
    return 1e6 * (time.perf_counter() - begin) / times / LAYERS


def main() -> None:
    print("| heads | context | rows | tokens each | before them | as it is, us | written anew | share |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        heads, groups, size, context, rows, tokens, past = shape
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(graph(heads, groups, size), path)
            anew = attentive(path)
            assert anew is not None, "it can be written anew"
            runs = bound(str(path), True, shape), bound(anew.graph, anew.in_blocks, shape)
        pairs = [[microseconds(run) for run in runs] for _ in range(ROUNDS)]
        before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
        share = statistics.median(two[1] / two[0] for two in pairs)
        kind = f"{heads} of {size}, {groups} of keys"
        print(
            f"| {kind} | {context} | {rows} | {tokens} | {past} | {before:.0f} | {after:.0f} | {share:.2f} |"
        )


if __name__ == "__main__":
    main()
