"""Preflight: what would make every process of a service fail is found before one is started, all of it at once."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from .errors import BrigantineError, ModelInvalid, SettingsInvalid
from .registry import Registry
from .session import Session, runtime
from .settings import Settings
from .store import Found, Store

__all__ = ["CHECKED", "preflight"]

CHECKED = "_BRIGANTINE_CHECKED"
"""Holds the number of the process that has passed, and becomes BentoML's supervisor."""

_BENTOML_KEEPS = ("bentos", "models", "envs", "tmp")


def preflight(host: str | None = None, port: int = 0) -> Settings:
    """Find out what would make a start fail.

    Args:
        host: the address to listen on; None where it is not known.
        port: its port.

    Raises:
        SettingsInvalid: a variable is unknown or wrong, a folder is missing, the address is taken; or there are several
            faults, of whatever kind: names all of them.
        RuntimeMissing: ONNX Runtime is missing, installed twice, or has no GPU and must have one.
        ModelNotFound: the default model that was asked for does not exist.
        ModelInvalid: the default model is damaged.
        PluginInvalid: something is rejected, and `strict` is set.
    """
    faults = list(_of_address(host, port)) if host is not None else []
    places = [*_of_home(), *_of_folders()]
    settings: Settings | None = None
    try:
        settings = Settings.read()
    except SettingsInvalid as error:
        faults.append(error)
    faults += _of_runtime()
    if settings is not None and not places:
        faults += _of_models(settings)
    told = [str(fault) for fault in (*places, *faults)]
    if settings is None or told:
        told = [one for one in dict.fromkeys(told) if not any(one in other for other in told if other != one)]
        raise (*places, *faults)[0] if len(told) == 1 else SettingsInvalid("; ".join(told))
    return settings


def _of_folders() -> Iterator[BrigantineError]:
    for name in ("BRIGANTINE_MODELS_DIR", "BRIGANTINE_PLUGINS_DIR"):
        folder = os.environ.get(name)
        if folder is not None and not Path(folder).is_dir():
            yield SettingsInvalid(f"{name}: expected a folder, got {folder}; make it, or unset the variable")
        elif folder is not None and not os.access(folder, os.R_OK | os.X_OK):
            yield SettingsInvalid(
                f"{name}: expected a folder that may be read, got {folder}; chmod a+rx {folder}"
            )


def _of_home() -> Iterator[BrigantineError]:
    """BentoML makes these folders as soon as it is asked for a model, and tells of it in a traceback."""
    home = Path(os.environ.get("BENTOML_HOME") or "~/bentoml").expanduser()
    try:
        for name in _BENTOML_KEEPS:
            (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        yield SettingsInvalid(
            f"BENTOML_HOME: expected a folder that can be written to, got {home} ({error.strerror}); set it to one, "
            "such as /tmp/bentoml"
        )


def _of_address(host: str, port: int) -> Iterator[BrigantineError]:
    """BentoML tells of an occupied port after all else, in a traceback; and it would take 99999 for 34463."""
    try:
        if not 0 < port < 1 << 16:
            raise OSError(0, "a port that is not one of 1 to 65535")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        yield SettingsInvalid(
            f"{host}:{port}: expected an address to listen on, got {error.strerror!r}; {_remedy(error)}"
        )


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return "take an address of this machine: brigantine serve --host 127.0.0.1"
    return "stop what listens there, or take another port: brigantine serve --port 3100, make serve PORT=3100"


def _of_runtime() -> Iterator[BrigantineError]:
    try:
        runtime()
    except BrigantineError as error:
        yield error


def _of_models(settings: Settings) -> list[BrigantineError]:
    faults: list[BrigantineError] = []
    store = Store(settings.models_dir, settings.plugins_dir)
    found = store.find()
    try:
        if "default_model" in settings.model_fields_set or settings.default_model in found:
            store.get(settings.default_model).open()
    except BrigantineError as error:
        faults.append(error)
    try:
        if settings.require_gpu:
            _need_gpu(settings, found.values())
        if settings.strict:
            Registry.load(settings).close()
    except BrigantineError as error:
        faults.append(error)
    return faults


def _need_gpu(settings: Settings, places: Iterable[Found]) -> None:
    for place in places:
        with suppress(ModelInvalid):  # is rejected when it is loaded, with this reason
            Session.open(place.open(), settings.session(place.name), require_gpu=True)
