"""What the product has: metrics, paths, settings, codes of errors, its port, the names of its images."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from brigantine import cli, errors
from brigantine.api import entry
from brigantine.errors import BrigantineError, MethodNotAllowed, NotFound, SettingsInvalid
from brigantine.metrics import STAGES, Metrics
from brigantine.settings import Settings

__all__ = [
    "STAGES",
    "codes",
    "has_path",
    "images",
    "metrics",
    "port",
    "setting_names",
    "settings_of",
    "user",
    "wrong_settings",
]

ROOT = Path(__file__).parent.parent.parent
PREFIX = "BRIGANTINE_"

OTHERS = {
    # Not ours; a test asks a real HAProxy for its own.
    "up": frozenset[str](),
    "haproxy_backend_active_servers": frozenset({"proxy"}),
    "haproxy_backend_current_queue": frozenset({"proxy"}),
}


@cache
def metrics() -> Mapping[str, frozenset[str]]:
    """The labels of every series that can be there, by its name."""
    with patch.dict(os.environ):
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        registry = Metrics()
    found: dict[str, frozenset[str]] = dict(OTHERS)
    for metric in [*vars(registry).values(), *vars(registry.steps).values()]:
        if not hasattr(metric, "describe"):
            continue
        [family] = metric.describe()
        labels = frozenset[str](metric._labelnames)
        if family.type == "counter":
            found[f"{family.name}_total"] = labels
        elif family.type == "histogram":
            found |= {f"{family.name}_bucket": labels | {"le"}}
            found |= {f"{family.name}_{part}": labels for part in ("sum", "count")}
        else:
            found[family.name] = labels
    return found


@cache
def _router() -> Any:
    return entry.Entry(cast(Any, None), entry.Host())._router  # pyright: ignore[reportPrivateUsage]


def has_path(path: str, method: str = "GET") -> bool:
    """Whether the service answers there."""
    try:
        _router().find(method, path.partition("?")[0])
    except (NotFound, MethodNotAllowed):
        return False
    return True


@cache
def port() -> int:
    """Where it listens when nobody says otherwise."""
    return cast(int, inspect.signature(cli.serve).parameters["port"].default)


@cache
def codes() -> frozenset[str]:
    """Those of the errors that a client can be answered."""
    tree = [error for error in vars(errors).values() if isinstance(error, type)]
    return frozenset(error.code for error in tree if issubclass(error, BrigantineError))


@cache
def setting_names() -> frozenset[str]:
    return frozenset(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)


@cache
def images() -> frozenset[str]:
    """The tags that `make image` and `make image-gpu` give."""
    text = (ROOT / "Makefile").read_text() + (ROOT / "deploy" / "image" / "build").read_text()
    tags = re.findall(r"deploy/image/build (?:cpu|cuda) ([\w.:/-]+)", text)
    return frozenset(tag if ":" in tag else f"{tag}:latest" for tag in tags)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    ours = [name for name in os.environ if name.startswith(PREFIX)]
    with patch.dict(os.environ):
        for name in ours:
            del os.environ[name]
        os.environ.update({name: text for name, text in variables.items() if name.startswith(PREFIX)})
        yield


def wrong_settings(variables: Mapping[str, str]) -> str:
    """What the service would say of this environment at its start; empty when it would start."""
    with _environment(variables):
        try:
            Settings.read()
        except SettingsInvalid as error:
            return str(error)
    return ""


def settings_of(variables: Mapping[str, str]) -> Settings:
    """The settings of this environment; the defaults when it is wrong, which is a fault of its own."""
    with _environment({} if wrong_settings(variables) else variables):
        return Settings()


@cache
def user() -> int:
    """The user that the image runs as."""
    found = re.search(r"^USER (\d+)", (ROOT / "deploy" / "image" / "Dockerfile").read_text(), re.M)
    assert found is not None, "the image's user is a number, for Kubernetes"
    return int(found[1])
