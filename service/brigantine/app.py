"""The BentoML service: processes, start and stop.

    bentoml serve brigantine.app:Brigantine

BentoML starts the worker, calls `Brigantine.start` in it, and passes every request through `Entry`, which
answers all of them. See `brigantine.api.entry` for why nothing is mounted.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any, cast

import bentoml

from .api import Entry, Host
from .engine import Engine
from .errors import ModelInvalid, SettingsInvalid
from .registry import Registry
from .session import Session, runtime
from .settings import Settings
from .store import Store

__all__ = ["Brigantine", "preflight"]

log = logging.getLogger("brigantine")

_host = Host()


def _patience_s() -> float:
    """How long BentoML waits for the first byte of an answer, in seconds.

    It keeps a timer of this length for every request, also when that has been answered, so it is no longer than a
    request can take: one timeout for the body and one for the generation, both of which are answered by us.
    """
    try:
        timeout_s = Settings.read().timeout_s
    except SettingsInvalid:  # `check` says so when the service starts; importing it must not
        timeout_s = Settings.model_fields["timeout_s"].default
    return 2 * timeout_s + 10


def preflight() -> Settings:
    """Find out before any process is started what would make every one of them fail.

    Raises:
        SettingsInvalid: a variable is unknown or wrong, or the folder of models does not exist.
        RuntimeMissing: ONNX Runtime is missing, installed twice, or has no GPU and must have one.
        ModelNotFound: the default model that was asked for does not exist.
        PluginInvalid: something is rejected, and `strict` is set.
    """
    settings = Settings.read()
    runtime()
    store = Store(settings.models_dir)
    found = store.find()
    if "default_model" in settings.model_fields_set:
        store.get(settings.default_model)
    if settings.require_gpu:
        for place in found.values():
            with suppress(ModelInvalid):  # is rejected when it is loaded, with this reason
                Session.open(place.open(), require_gpu=True)
    if settings.strict:
        Registry.load(settings)
    return settings


_IMAGE: Any = (
    cast(Any, bentoml)
    .images.Image(base_image="python:3.11-slim", distro="none", lock_python_packages=False)
    .build_include(
        "/pyproject.toml", "/README.md", "/LICENSE", "/constraints.txt", "/service", "/plugins", "/training"
    )
    .python_packages(".")
)


@bentoml.service(
    name="brigantine",
    image=_IMAGE,
    workers=1,
    # Ours: deadlines (504), the access log and the metrics, all with the request's own model and id.
    traffic={"timeout": _patience_s()},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Brigantine:
    """Serves every model that can be found."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        preflight()

    @bentoml.on_startup
    def start(self) -> None:
        # One process serves. In the folder that BentoML sets here, which all services of a user share and each of
        # them empties at its start, our counts would not last.
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        settings = Settings.read()
        _log_to_stderr()
        _host.access_log = settings.access_log
        _host.engine = engine = Engine.start(settings)
        for record in engine.registry.models.values():
            log.info("model %s: %s %s", record.name, record.state, record.reason or record.source)

    @bentoml.on_shutdown
    def stop(self) -> None:
        engine, _host.engine = _host.engine, None
        if engine is not None:
            engine.close()


def _log_to_stderr() -> None:
    """BentoML configures its own loggers only; ours get one handler, once."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


_service: Any = Brigantine
_service.add_asgi_middleware(Entry, host=_host)
