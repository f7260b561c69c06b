"""The families that there are, by the data set that asks for them."""

from __future__ import annotations

from typing import Any

from .family import Family
from .gan import GAN
from .language.family import LANGUAGE

__all__ = ["family_of"]

_FAMILIES: dict[str, Family[Any, Any]] = {"mnist": GAN, "tinyshakespeare": LANGUAGE}


def family_of(dataset: str) -> Family[Any, Any]:
    """The family that trains on `dataset`, a name that the configuration has accepted."""
    return _FAMILIES[dataset]
