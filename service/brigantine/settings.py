"""Settings: environment variables that begin with `BRIGANTINE_`."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import SettingsInvalid
from .session import Device, SessionOptions

__all__ = ["Settings", "cores"]

_PREFIX = "BRIGANTINE_"
_MOST_THREADS = 4
"""More cores are better used by other workers' threads."""
_MOST_CORES = 256
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """The cores that this process may use: those of its affinity, at most what its container's quota is worth.

    The quota is that of a cgroup of version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.max`).
    """
    allowed = min(len(os.sched_getaffinity(0)), _MOST_CORES)
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # there is none: "max 100000"
        return allowed
    return max(1, min(allowed, math.ceil(quota / period)))


def _split(value: object) -> object:
    return (
        tuple(filter(None, (word.strip() for word in value.split(",")))) if isinstance(value, str) else value
    )


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Names with commas between."""


class Settings(BaseSettings):
    """How the service runs. Frozen; an unknown or wrong variable is refused by `Settings.read`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    models_dir: Path | None = None
    """A folder with one model in each sub-folder, searched before BentoML's model store."""
    default_model: str = "mnist"
    """The model of a request that names none. Where it makes other content, or is not there: the first by name."""
    device: Device = "auto"
    """Where graphs run. `auto` takes a CUDA device when there is one."""
    require_gpu: bool = False
    """Refuse to start when a model would run on a CPU."""
    plain_convolutions: bool = True
    """Compute transposed convolutions as plain ones: on an x86 CPU up to 1.5 times as fast, on a GPU where otherwise
    the same seed would not give the same bits; the last bits are others."""
    cache_bytes: int = Field(default=2**29, ge=1)
    """The most memory, in bytes, for the cache of each language model, in each worker."""
    gpu_mem_limit_bytes: int = Field(default=0, ge=0)
    """The most device memory for each model's activations; 0 sets no limit."""
    cuda_graphs: bool = True
    """Record each batch size's run once on a GPU and replay it; without it each kernel is launched anew."""
    gpu_fp16: bool = True
    """Compute language models in half precision on a GPU, which has no attention with a cache in float32."""
    tensorrt: bool = False
    """Try TensorRT before CUDA. It builds an engine for each model at each start, unless it may keep them."""
    tensorrt_fp16: bool = False
    """Let TensorRT compute in half precision: faster, and other bytes for the same seed."""
    tensorrt_cache_dir: Path | None = None
    """A folder in which TensorRT's engines are kept. They hold for one kind of GPU and one version of TensorRT."""
    model_options: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """The nine settings above and `intra_threads` for single models, as JSON: `{"mnist": {"device": "cpu"}}`."""
    workers: int = Field(default=0, ge=0, le=256)
    """Processes that answer, each with every model. 0: one for each core, and one alone where a GPU can be used."""
    threads: int = Field(default_factory=lambda: min(cores(), _MOST_THREADS), ge=1, le=256)
    """How many batches each of them makes at a time on a CPU, from the preparation to the encoding."""
    isolate: Names = ()
    """Plugins whose models run in processes of their own, beside those that ask for it."""
    max_batch: int = Field(default=32, ge=1, le=4096)
    """The largest batch in rows; a model's own limit counts too."""
    max_n: int = Field(default=128, ge=1, le=4096)
    """The largest `n` of one request."""
    queue_rows: int = Field(default=1024, ge=1)
    """Rows of one model that may be in work, waiting ones included. Beyond it a request is answered 429."""
    queue_bytes: int = Field(default=268_435_456, ge=1024)
    """Bytes of request bodies that one model may have in work, as `queue_rows`."""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds after which a request is answered 504 and its work dropped; `X-Request-Timeout-Ms` shortens it."""
    stream_interval_s: float = Field(default=0.025, ge=0, le=1)
    """The least seconds between two pieces of a stream: to send one costs more than to make some tokens."""
    drain_seconds: float = Field(default=20.0, ge=0, le=3600)
    """Seconds after a SIGTERM within which what is under way is finished; what is not is given up then."""
    lame_duck_seconds: float = Field(default=1.0, ge=0, le=600)
    """Of these the first, in which a worker goes on answering, if only that it stops: a load balancer is to see it."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    """The largest request body. Beyond it a request is answered 413."""
    access_log: bool = True
    """One log line for each request."""
    metrics: bool = True
    """Count and time every generation. Without it `/metrics` shows only what is in service."""
    plugins_dir: Path | None = None
    """A folder of plugins: `chime.py`, or a package `chime/`, is the plugin `chime`; their models lie in `models/`."""
    plugins_allow: Names = ()
    """The only plugins to import; empty for all."""
    plugins_deny: Names = ()
    """Plugins not to import."""
    dev: bool = False
    """One worker, which starts anew when a file in `plugins_dir` changes."""
    load_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that importing a plugin, or loading and trying a model, may take before it is rejected."""
    breaker_failures: int = Field(default=10, ge=0, le=1_000_000)
    """Failures of a model in a row after which it rests for some seconds; 0 lets it go on."""
    strict: bool = False
    """Refuse to start when any plugin or model is rejected, instead of serving the others."""

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if faults := [*self._contradictions(), *self._wrong_options()]:
            raise ValueError("; ".join(faults))
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.max_n > self.queue_rows:
            yield f"max_n is {self.max_n} and queue_rows {self.queue_rows}: such a request could never run"
        if self.plugins_dir is not None and not self.plugins_dir.is_dir():
            yield (
                f"{_PREFIX}PLUGINS_DIR: expected a folder, got {self.plugins_dir}; make it, or unset the variable"
            )
        if self.dev and self.plugins_dir is None:
            yield f"dev is set and no {_PREFIX}PLUGINS_DIR, whose changes it would follow; name that folder"
        if self.require_gpu and self.device == "cpu":
            yield "device is cpu and require_gpu is set: no model could ever run"

    def _wrong_options(self) -> Iterator[str]:
        for model in self.model_options:
            try:
                self.session(model)
            except ValidationError as error:
                for fault in error.errors():
                    where = ".".join(map(str, fault["loc"]))
                    yield f"model_options: {model}: {where}: {fault['msg']}, got {fault['input']!r}"

    def session(self, model: str) -> SessionOptions:
        """How the graph of this model is run."""
        common = {name: getattr(self, name) for name in SessionOptions.model_fields if hasattr(self, name)}
        return SessionOptions(**common | self.model_options.get(model, {}))

    @classmethod
    def read(cls) -> Settings:
        """The settings of this process's environment.

        Raises:
            SettingsInvalid: names every variable that is unknown or wrong, all at once.
        """
        faults = [*_unknown(cls)]
        try:
            settings = cls()
        except ValidationError as error:
            faults += map(_fault, error.errors())
            raise SettingsInvalid("; ".join(faults)) from None
        if faults:
            raise SettingsInvalid("; ".join(faults))
        return settings


def _fault(error: ErrorDetails) -> str:
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    return f"{_PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}, got {error['input']!r}"


def _unknown(cls: type[Settings]) -> list[str]:
    known = [f"{_PREFIX}{name.upper()}" for name in cls.model_fields]
    faults: list[str] = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            faults.append(f"{name}: no such setting; {hint}")
    return faults
