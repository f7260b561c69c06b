"""A language model of one layer whose cache comes back longer, as those that torch exports do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.scribble import CONFIG, language_model

__all__ = ["parrot_model"]

_WIDTH = 16


def parrot_model(folder: Path, name: str = "parrot", max_batch: int = 8) -> Path:
    """The folder of such a model, below `folder`."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    whole = {"zero": 0, "one": 1, "heads": [1]}
    stored = [weight("embedding", CONFIG["vocab_size"], _WIDTH), weight("mix", _WIDTH, 3 * _WIDTH)]
    stored += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in whole.items()]
    stored.append(numpy_helper.from_array(np.array(-1e9, np.float32), "never"))
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["hidden"]),
        node("MatMul", ["hidden", "mix"], ["mixed"]),
        node("Unsqueeze", ["mixed", "heads"], ["headed"]),  # [batch, 1, sequence, 48]
        node("Split", ["headed"], ["query", "key", "value"], axis=3, num_outputs=3),
        node("Concat", ["past_key_values.0.key", "key"], ["present.0.key"], axis=2),
        node("Concat", ["past_key_values.0.value", "value"], ["present.0.value"], axis=2),
        node("Transpose", ["present.0.key"], ["turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["query", "turned"], ["scores"]),
        # A token looks at those before it, and at none that the mask leaves out.
        node("Shape", ["past_key_values.0.key"], ["past_shape"], start=2, end=3),
        node("Shape", ["present.0.key"], ["total_shape"], start=2, end=3),
        *(node("Squeeze", [f"{name}_shape"], [name]) for name in ("past", "total")),
        node("Range", ["zero", "total", "one"], ["columns"]),
        node("Range", ["past", "total", "one"], ["rows"]),
        node("Unsqueeze", ["rows", "heads"], ["row_column"]),
        node("LessOrEqual", ["columns", "row_column"], ["earlier"]),  # [sequence, total]
        node("Cast", ["attention_mask"], ["there"], to=TensorProto.BOOL),
        node("Unsqueeze", ["there", "heads"], ["there_rows"]),
        node("And", ["earlier", "there_rows"], ["seen"]),  # [batch, sequence, total]
        node("Unsqueeze", ["seen", "heads"], ["seen_heads"]),
        node("Where", ["seen_heads", "scores", "never"], ["masked"]),
        node("Softmax", ["masked"], ["shares"], axis=-1),
        node("MatMul", ["shares", "present.0.value"], ["attended"]),
        node("Squeeze", ["attended", "heads"], ["flat"]),
        node("Add", ["flat", "hidden"], ["summed"]),
        node("Transpose", ["embedding"], ["head"], perm=[1, 0]),
        node("MatMul", ["summed", "head"], ["logits"]),
    ]
    value, floats = helper.make_tensor_value_info, TensorProto.FLOAT
    cache, grown = ["batch", 1, "past_sequence", _WIDTH], ["batch", 1, "total_sequence", _WIDTH]
    inputs = [
        value("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        value("attention_mask", TensorProto.INT64, ["batch", "total_sequence"]),
        *(value(f"past_key_values.0.{part}", floats, cache) for part in ("key", "value")),
    ]
    outputs = [
        value("logits", floats, ["batch", "sequence", CONFIG["vocab_size"]]),
        *(value(f"present.0.{part}", floats, grown) for part in ("key", "value")),
    ]
    graph = helper.make_graph(nodes, "parrot", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return language_model(folder / name, model, CONFIG, max_batch)
