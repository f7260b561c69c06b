"""The BentoML service: processes, start and stop.

    bentoml serve brigantine.app:Brigantine

BentoML starts the workers and calls `Brigantine.start` in each; `Entry`, which stands around BentoML's own app,
answers every request. See `brigantine.api.entry` for why nothing is mounted.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer

from .api import Entry, Host
from .engine import Engine
from .errors import BrigantineError, ModelInvalid
from .registry import Registry
from .reload import follow
from .session import Session, cuda_at_hand, runtime
from .settings import Settings, cores
from .store import Store

__all__ = ["Brigantine", "preflight"]

log = logging.getLogger("brigantine")

_host = Host()

_SHARED_DIR = "_BRIGANTINE_SHARED_DIR"
"""Where all workers of one service count, and share out the cores. BentoML's own folder for counts is one for all
services of a user, each of which empties it at its start."""


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
    store = Store(settings.models_dir, settings.plugins_dir)
    found = store.find()
    if "default_model" in settings.model_fields_set:
        store.get(settings.default_model)
    if settings.require_gpu:
        for place in found.values():
            with suppress(ModelInvalid):  # is rejected when it is loaded, with this reason
                Session.open(place.open(), settings.session(place.name), require_gpu=True)
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


def _workers() -> int:
    """How many processes answer. What is wrong with the settings is for `preflight` to say."""
    try:
        settings = Settings.read()
        if settings.dev:
            return 1
        return settings.workers or (1 if settings.device == "auto" and cuda_at_hand() else cores())
    except BrigantineError:
        return 1


class _Service(bentoml.Service[Any]):
    """A BentoML service whose outermost layer is ours: what BentoML puts around an app costs more than an image."""

    def to_asgi(self, is_main: bool = True) -> Any:
        return _traced(Entry(super().to_asgi(is_main), host=_host))


def _traced(app: Entry) -> Any:
    """`app` in BentoML's layer for spans, when BentoML's configuration asks for traces."""
    if not BentoMLContainer.config.tracing.sample_rate.get():
        return app
    from opentelemetry.instrumentation.asgi import (  # pyright: ignore[reportMissingTypeStubs] # noqa: PLC0415
        OpenTelemetryMiddleware,
    )

    return OpenTelemetryMiddleware(app, tracer_provider=BentoMLContainer.tracer_provider.get())


@bentoml.service(
    name="brigantine",
    service_class=_Service,
    image=_IMAGE,
    workers=_workers(),
    metrics={"enabled": False},  # ours have the request's own model, and bounded labels
)
class Brigantine:
    """Serves every model that can be found."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        preflight()
        folder = os.environ[_SHARED_DIR] = tempfile.mkdtemp(prefix="brigantine-")
        (Path(folder) / "counts").mkdir()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)

    @bentoml.on_startup
    def start(self) -> None:
        shared = Path(os.environ[_SHARED_DIR]) if _SHARED_DIR in os.environ else None
        if (
            shared is None
        ):  # started without BentoML's deployment hook, as a test does: this process is the only one
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared / "counts")
        settings = Settings.read()
        _log_to_stderr()
        if settings.dev and settings.plugins_dir is not None:  # before anything in it is read
            threading.Thread(target=follow, args=(settings.plugins_dir,), daemon=True).start()
        _host.access_log = settings.access_log
        _host.engine = engine = Engine.start(settings, cores_file=shared and shared / "cores")
        for record in engine.registry.models.values():
            log.info("model %s: %s %s", record.name, record.state, record.reason or record.source)
        # What is here now stays: a full collection over it would hold every request up by some 80 ms.
        gc.collect()
        gc.freeze()

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
