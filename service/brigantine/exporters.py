"""Exporters: what turns a folder of weights into a graph, found by the plugin that serves what it makes.

One is an entry point of the group `brigantine.exporters`, so that the service needs none of what exporting needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .session import RuntimeMissing

__all__ = ["EXPORTER_GROUP", "Exported", "Exporter", "exporter_of"]

EXPORTER_GROUP = "brigantine.exporters"
"""The entry-point group through which exporters are found."""


class Exported(NamedTuple):
    """What an exporter knows of the graph that it has written."""

    facts: Mapping[str, Any]
    """What the manifest says of how it was made."""
    logits: Callable[[Sequence[int]], NDArray[np.float32]]
    """What the network itself predicts: T tokens in, logits [T, vocabulary] out."""


Exporter = Callable[[Path, Path], Exported]
"""Takes a folder of weights, and a folder in which it writes `model.onnx`, perhaps with files of weights beside it."""


def exporter_of(plugin: str) -> Exporter:
    """The exporter for models that `plugin` serves.

    Raises:
        RuntimeMissing: it is not installed, or a package that it needs is not.
    """
    found = [entry for entry in metadata.entry_points(group=EXPORTER_GROUP) if entry.name == plugin]
    try:
        if not found:
            raise ImportError(f"no entry point {plugin!r} in the group {EXPORTER_GROUP}")
        return cast("Exporter", found[0].load())
    except ImportError as error:
        raise RuntimeMissing(
            f"a folder of weights must be exported first, and what does that is missing ({error}): "
            "pip install 'brigantine[hf]'"
        ) from error
