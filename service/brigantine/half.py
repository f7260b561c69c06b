"""Half: a language model's graph in float16, for which alone CUDA has the attention that appends to a cache in place.

In float32 the attention would run on the CPU, and all that it reads and makes would cross the bus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

__all__ = ["halved"]

_MOST_BYTES = (
    2**30
)  # a graph is at most 2 GiB as bytes, and stands in memory several times while it is written anew
_LOGITS = "logits"


def halved(path: Path) -> bytes | None:
    """The graph with all its numbers in float16 but the logits; None where that is not what it lacks.

    Args:
        path: an ONNX file. One of float16, without GroupQueryAttention, with its weights beside it, or larger than a
            gibibyte stays as it is.
    """
    if path.stat().st_size > _MOST_BYTES:
        return None
    import onnx  # noqa: PLC0415 - only where there is a GPU

    model = onnx.ModelProto.FromString(path.read_bytes())
    graph = model.graph
    caches = [value for value in graph.input if value.name.startswith("past_key_values.")]
    is_float = all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in caches)
    attends = any(node.op_type == "GroupQueryAttention" for node in graph.node)
    beside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)
    if not (caches and is_float and attends) or beside:
        return None
    from onnxruntime.transformers import float16  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes long

    made = cast(Any, float16).convert_float_to_float16(model, keep_io_types=[_LOGITS])
    return made.SerializeToString()
