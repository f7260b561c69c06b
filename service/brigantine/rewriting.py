"""Rewriting: graphs that are written anew when they are loaded are read here."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["graph_with"]

_MOST_BYTES = 2**28
"""A larger file is left as it is: to write it anew takes some five times its size."""


def graph_with(path: Path, operator: str, most_bytes: int = _MOST_BYTES) -> ModelProto | None:
    """The graph in `path`, if it has such a node and can be written anew.

    None where it has no such node, branches, weights in other files, or more than `most_bytes`.

    Raises:
        Exception: the file cannot be read, or is no graph.
    """
    if not (0 < path.stat().st_size <= most_bytes and _mentions(path, operator.encode())):
        return None
    import onnx  # noqa: PLC0415 - most graphs have no such node

    proto = onnx.load_model_from_string(path.read_bytes())
    external = any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in proto.graph.initializer)
    branches = any(item.HasField("g") for node in proto.graph.node for item in node.attribute)
    return None if external or branches else proto


def _mentions(path: Path, word: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0
