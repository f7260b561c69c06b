"""The BentoML service: processes, start and stop.

    bentoml serve brigantine.app:Brigantine

BentoML starts the workers and calls `Brigantine.start` in each; `Entry`, which stands around BentoML's own app,
answers every request. See `brigantine.api.entry` for why nothing is mounted.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib.util
import logging
import os
import shutil
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import bentoml
import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus
from pydantic import BaseModel

from .api import ACCESS, AccessLog, Entry, Host
from .drain import Drain, end_when_asked, end_with_parent, leaving_at_once
from .engine import Engine
from .errors import BrigantineError
from .nest import Nest
from .preflight import CHECKED, preflight
from .reload import follow
from .settings import Settings, cores
from .shared import Shared
from .supervisor import supervised

__all__ = ["Brigantine", "preflight"]

log = logging.getLogger("brigantine")

_WORKERS_NEED = (
    "_bentoml_impl.server.app",
    "uvicorn.lifespan.on",
    "brigantine.api.direct",
    "uvloop",
    "numpy.random",
    "brigantine.inference",
    "tokenizers",
)
"""Beside what this file imports. `prometheus_client` must not be among them; see `brigantine.metrics`."""

_M_ARENA_MAX = -8  # mallopt(3)

_TURN_S = 0.0002
"""How long a thread goes on in Python when another waits for its turn. With Python's 5 ms a lane that had a batch to
begin, or pictures to encode, stood still while the event loop wrote its answers: a worker alone with many connections
answered two thirds as many."""

_host = Host()


class _Arguments(BaseModel, extra="forbid"):
    """What `bentoml build --arg` may say."""

    device: Literal["cpu", "cuda"] = "cpu"


def _image(device: str) -> Any:
    """How BentoML builds the image: a slim base, no compiler, within constraints.txt as bentofile.yaml tells uv.

    For CUDA the one package that differs is swapped, for the reason that pyproject.toml gives. What is run of this
    image, and how, is in deploy/image/Dockerfile.
    """
    image = (
        cast(Any, bentoml)
        .images.Image(
            base_image="docker.io/library/python:3.11-slim",
            python_version="3.11",
            distro="none",  # else a compiler is installed
            lock_python_packages=False,
        )
        .build_include(
            "/pyproject.toml",
            "/README.md",
            "/LICENSE",
            "/constraints.txt",
            "/service",
            "/plugins",
            "/training",
        )
        .python_packages(".")
    )
    if device == "cuda":
        image.run("uv pip uninstall onnxruntime")
        image.run("uv pip install 'onnxruntime-gpu[cuda,cudnn]'")
    return image


def _built_for_cuda() -> bool:
    """Whether ONNX Runtime brings a library for CUDA. Does not import it: that is 20 MB in a process for good."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = (spec.submodule_search_locations if spec else None) or ()
    return any(Path(folder, "capi", "libonnxruntime_providers_cuda.so").exists() for folder in folders)


def _workers() -> int:
    """How many processes answer. What is wrong with the settings is for `preflight` to say."""
    try:
        settings = Settings.read()
        if settings.dev:
            return 1
        return settings.workers or (1 if settings.device == "auto" and _built_for_cuda() else cores())
    except BrigantineError:
        return 1


class _Service(bentoml.Service[Any]):
    """A BentoML service whose outermost layer is ours: what BentoML puts around an app costs more than an image."""

    def to_asgi(self, is_main: bool = True) -> Any:
        # The supervisor need not have them.
        from uvicorn.config import HTTP_PROTOCOLS, LOOP_FACTORIES  # noqa: PLC0415

        from .api.direct import DirectProtocol  # noqa: PLC0415

        entry = Entry(super().to_asgi(is_main), host=_host)
        LOOP_FACTORIES["auto"] = "brigantine.fair:loops"  # BentoML's worker asks for both next
        if BentoMLContainer.config.tracing.sample_rate.get():
            return _traced(entry)
        HTTP_PROTOCOLS["auto"] = cast(Any, partial(DirectProtocol, entry))
        return entry


def _traced(app: Entry) -> Any:
    """`app` in BentoML's layer for spans."""
    from opentelemetry.instrumentation.asgi import (  # pyright: ignore[reportMissingTypeStubs] # noqa: PLC0415
        OpenTelemetryMiddleware,
    )

    return OpenTelemetryMiddleware(app, tracer_provider=BentoMLContainer.tracer_provider.get())


@bentoml.service(
    name="brigantine",
    service_class=_Service,
    image=_image(cast(Any, bentoml).use_arguments(_Arguments).device),
    workers=_workers(),
    metrics={"enabled": False},  # ours have the request's own model, and bounded labels
)
class Brigantine:
    """Serves every model that can be found."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Runs in the process that becomes the supervisor, before it opens its socket and starts the workers."""
        end_when_asked()
        _log_to_stderr()
        if os.environ.pop(CHECKED, "") != str(os.getpid()):
            _pass_preflight()
        shared = Shared.create()
        atexit.register(shutil.rmtree, shared.folder, ignore_errors=True)
        if _workers() > 1:
            shared.weights.mkdir()
        _share_heap()
        has_tls = BentoMLContainer.ssl.enabled.get()  # which the doorman does not speak
        circus.Arbiter = supervised(
            circus.Arbiter, Settings.read(), shared, Nest(_WORKERS_NEED), doorman=not has_tls
        )

    @bentoml.on_startup
    def start(self) -> None:
        shared = Shared.found()
        # Without BentoML's deployment hook, as in a test, this process is the only one.
        if shared is None:
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared.counts)
            end_with_parent()
        settings = Settings.read()
        _log_to_stderr()
        if settings.dev and settings.plugins_dir is not None:  # before anything in it is read
            threading.Thread(target=follow, args=(settings.plugins_dir,), daemon=True).start()
        _host.access = AccessLog() if settings.access_log else None
        with leaving_at_once():
            _host.engine = engine = Engine.start(settings, cores_file=shared and shared.cores)
        for record in engine.registry.models.values():
            log.info("model %s: %s %s", record.name, record.state, record.reason or record.source)
        _settle()
        if shared is not None:
            Drain(settings, shared, refuse=_refuse, give_up=self.stop)

    @bentoml.on_shutdown
    def stop(self) -> None:
        engine, _host.engine = _host.engine, None
        if engine is not None:
            engine.close()
        if _host.access is not None:
            _host.access.flush()


def _settle() -> None:
    """Make the interpreter ready for many requests at once."""
    # What is here now stays: a full collection over it would hold every request up by some 80 ms.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_TURN_S)
    _give_back()


def _share_heap() -> None:
    """Have each worker that is forked keep one heap.

    With glibc each thread that loads a model has a heap of its own, of whose holes others cannot make use: 20 MB in
    two workers. A thread keeps what it has, so that this comes before any of them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _give_back() -> None:
    """Some 10 MB that loading has left free in each worker go back to the system, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _refuse() -> None:
    _host.stopping = True


def _pass_preflight() -> None:
    """In a process of its own: what it loads would stay in the supervisor for good."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            print(f"internal_error: what is tried before a start has ended by {name}", file=sys.stderr)
        if status:
            raise SystemExit(1)
        return
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        command = click.get_current_context(silent=True)  # `bentoml serve`, which has the address
        address = command.params if command else {}
        preflight(address.get("host"), address.get("port", 0))
        code = 0
    except BrigantineError as error:
        print(f"{error.code}: {error}", file=sys.stderr, flush=True)
    except BaseException:
        log.exception("the start has failed")
    finally:
        os._exit(code)


def _log_to_stderr() -> None:
    """BentoML configures its own loggers only, and disables those that are there; ours get their handlers, once."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.split(".")[0] == log.name:
            logger.disabled = False
    if log.handlers:
        return
    log.setLevel(logging.INFO)
    formats = {log.name: "%(asctime)s %(levelname)s %(name)s %(message)s", ACCESS: "%(message)s"}
    for name, line in formats.items():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(line))
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False
