"""Half: a language model's graph in float16, for which alone CUDA has the attention that appends to a cache in place.

In float32 the attention would run on the CPU, and all that it reads and makes would cross the bus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from .rewriting import graph_with

__all__ = ["halved"]

_MOST_BYTES = 2**30
"""A larger graph is left as it is: as bytes it may have twice as many, and it stands in memory several times."""
_LOGITS = "logits"


def halved(path: Path) -> bytes | None:
    """The graph with all its numbers in float16 but the logits; None where that is not what it lacks.

    Args:
        path: an ONNX file. One of float16, without GroupQueryAttention, larger than a gibibyte, or that `graph_with`
            leaves alone stays as it is.
    """
    model = graph_with(path, "GroupQueryAttention", _MOST_BYTES)
    if model is None:
        return None
    import onnx  # noqa: PLC0415 - only where there is a GPU

    caches = [value for value in model.graph.input if value.name.startswith("past_key_values.")]
    if not caches or any(value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT for value in caches):
        return None
    from onnxruntime.transformers import float16  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes long

    made = cast(Any, float16).convert_float_to_float16(model, keep_io_types=[_LOGITS])
    return made.SerializeToString()
