"""Adopted: where every import ends. What was made of a graph is loaded as the service will, and published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from .errors import ModelInvalid
from .model import Model
from .registry import Registry
from .settings import Settings
from .store import Found, Store, publish

__all__ = ["STAGED", "Adopted", "settle"]

STAGED = "imported"
"""The name of a model until it is published, which judges the name."""


class Adopted(NamedTuple):
    """What became of a graph."""

    tag: str
    """`name:version` in the store."""
    told: str
    """What was found in the graph, and what was seen when it ran."""
    doubts: list[str]
    """What may be wrong, each with a remedy."""
    earlier: str
    """What had the name before; empty when nothing had."""


def settle(path: Path, model: Model, name: str, told: str, doubts: list[str]) -> Adopted:
    """Load `model`, which was made of `path` and lies alone in its folder, through its plugin, and publish it.

    Args:
        path: what was imported.
        model: called `STAGED`.
        name: to publish it under; empty for the name of `path`.
        told: see `Adopted`.
        doubts: see `Adopted`.

    Raises:
        ModelInvalid: its plugin refuses it, or `name` is none.
    """
    settings = Settings.read()
    _warm_up(path, model, settings)
    # The name of a folder has no suffix, but may have a dot.
    own = path.stem if path.is_file() else path.resolve().name
    name = name or re.sub(r"[^a-z0-9]+", "-", own.lower()).strip("-")
    before = Store(settings.models_dir, settings.plugins_dir).find().get(name)
    tag = publish(model.path, name)
    return Adopted(tag, told, doubts, _earlier(tag, before))


def _earlier(tag: str, before: Found | None) -> str:
    """What had the name of `tag` before it was published."""
    name = tag.partition(":")[0]
    if before is None:
        return ""
    if before.source != "bentoml":
        first = "is searched first, and serves" if before.source.startswith("folder") else "gives way to it"
        return f"{before.source} has a model called {name} too, which {first}"
    was = f"{name}:{before.path.name}"
    return (
        f"{tag} was there already" if was == tag else f"{was} had this name before, and is no longer served"
    )


def _warm_up(path: Path, model: Model, settings: Settings) -> None:
    """Load the model as a start of the service will, through its plugin."""
    alone = settings.model_copy(update={"models_dir": model.path.parent, "strict": False})
    registry = Registry.load(alone, only=model.name)
    registry.close()
    if reason := registry.models[model.name].reason:
        raise ModelInvalid(f"{path}: expected it to be served, got: {reason}; see `brigantine plugins list`")
