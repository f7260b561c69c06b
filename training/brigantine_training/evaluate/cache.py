"""The user's cache folder: what is worked out once for each data set, then kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from torch import Tensor

from ..errors import ScoringError

__all__ = ["cache_folder", "kept"]


def cache_folder() -> Path:
    """Where classifiers and reference features are kept: `$XDG_CACHE_HOME/brigantine` or its like."""
    return Path(user_cache_dir("brigantine")) / "evaluate"


def kept(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of the cached file `name`; made and written first when there is none.

    Raises:
        ScoringError: the file is damaged.
    """
    path = cache_folder() / name
    if path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:
            raise ScoringError(
                f"{path}: damaged ({type(error).__name__}). Delete it; it is made anew."
            ) from error
    tensors = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}")  # two processes may make it at once
    torch.save(tensors, own)
    os.replace(own, path)
    return tensors
