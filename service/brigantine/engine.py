"""The engine: a request's journey, without HTTP."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .errors import BrigantineError, DeadlineExceeded, GenerationFailed, NotAcceptable
from .media import Media
from .metrics import STAGES, Metrics
from .model import Arrays
from .registry import AnyPlugin, ModelRecord, Registry, prepare_row
from .request import Request, parse, request_type, seeds_of
from .scheduler import Scheduler
from .settings import Settings

__all__ = ["Engine", "Generation", "Served"]

T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """What a request became: one Media for each of its rows, with the seed that makes it again."""

    id: str
    model: str
    created: int
    """Seconds since the epoch."""
    seeds: Sequence[int]
    media: Sequence[Media]
    stages_s: Mapping[str, float]
    batch_rows: int
    """Rows in the largest batch that any of its rows ran in."""


class Served:
    """A model in service: its plugin, its queue, and the type of its requests."""

    def __init__(self, record: ModelRecord, plugin: AnyPlugin, settings: Settings, metrics: Metrics) -> None:
        self.record = record
        self.plugin = plugin
        self.request = request_type(plugin.params, f"{plugin.name.title()}Request", settings.max_n)
        self._most_rows = settings.queue_rows
        self._admitted = 0  # touched on the event loop only
        rows, seconds = metrics.batch_rows.labels(record.name), metrics.batch_seconds.labels(record.name)

        def on_batch(size: int, duration_s: float) -> None:
            rows.observe(size)
            seconds.observe(duration_s)

        self.scheduler = Scheduler(
            plugin.generate,
            # A GPU runs one batch at a time and gains from large ones; CPU cores gain from one batch each.
            threads=settings.threads if plugin.session.device == "cpu" else 1,
            max_batch=min(settings.max_batch, plugin.model.manifest.max_batch),
            queue_rows=settings.queue_rows,
            queue_bytes=settings.queue_bytes,
            on_batch=on_batch,
        )
        metrics.queue_rows.labels(record.name).set_function(lambda: self.scheduler.waiting)

    @contextmanager
    def admitted(self, rows: int) -> Generator[None, None, None]:
        """Room for a request's rows from before `prepare` until after `render`, so that no stage can pile up.

        Raises:
            QueueFull: there is none now.
        """
        if self._admitted + rows > self._most_rows:
            raise self.scheduler.full(self._admitted, rows)
        self._admitted += rows
        try:
            yield
        finally:
            self._admitted -= rows

    def media_type(self, wanted: str | None) -> str:
        """The type to render: `wanted`, or the plugin's default.

        Raises:
            NotAcceptable: the plugin cannot make it.
        """
        if wanted is None:
            return self.plugin.types[0]
        if wanted not in self.plugin.types:
            raise NotAcceptable(
                f"model {self.record.name!r} makes {', '.join(self.plugin.types)}, not {wanted}; "
                "ask for one of these"
            )
        return wanted


class Engine:
    """All models of a registry, running. Make one with `Engine.start`, and `close` it."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self.registry = registry
        self.settings = settings
        self.metrics = Metrics()
        self._encoders = ThreadPoolExecutor(settings.encoders, thread_name_prefix="encoder")
        self._served = {
            name: Served(record, record.plugin, settings, self.metrics)
            for name, record in registry.models.items()
            if record.plugin is not None
        }
        self._publish_state()

    @classmethod
    def start(cls, settings: Settings, only: str | None = None) -> Engine:
        """Load every model (or `only` one), warm them up, and start their threads."""
        return cls(Registry.load(settings, only), settings)

    def close(self) -> None:
        """Finish what waits and end all threads."""
        for served in self._served.values():
            served.scheduler.close()
        self._encoders.shutdown()

    def served(self, name: str) -> Served:
        """A model in service; raises what `Registry.find` raises."""
        self.registry.find(name)
        return self._served[name]

    async def generate(
        self,
        model: str,
        body: Mapping[str, Any],
        media_type: str | None = None,
        timeout_s: float = math.inf,
        also: Iterable[str] = (),
    ) -> Generation:
        """Make what `body` asks for.

        Args:
            model: the name of a model in service.
            body: the plugin's Params with the host's `n` and `seed`.
            media_type: one of the plugin's types, or None for its default.
            timeout_s: how long the caller will wait; the setting `timeout_s` when that is less.
            also: fields that the caller has taken out of the body, named in the hint for an unknown one.

        Raises:
            ModelNotFound, NotReady, BadParams, NotAcceptable, QueueFull, DeadlineExceeded, GenerationFailed.
        """
        served = self.served(model)
        work = partial(self._generate, served, body, media_type, also)
        within_s = min(timeout_s, self.settings.timeout_s)
        status = 500
        in_flight = self.metrics.in_flight.labels(model)
        in_flight.inc()
        try:
            generation = await asyncio.wait_for(work(within_s), within_s)
            status = 200
        except asyncio.TimeoutError:
            status = DeadlineExceeded.status
            raise DeadlineExceeded(
                f"model {model!r} did not answer within {within_s:g} s (BRIGANTINE_TIMEOUT_S or X-Request-Timeout-Ms, "
                "the shorter of the two); ask for fewer at a time, or try again later"
            ) from None
        except BrigantineError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = 499  # the client hung up; nginx's word for it
            raise
        finally:
            in_flight.dec()
            self.metrics.requests.labels(model, served.plugin.content, str(status)).inc()
        self._count(served, generation)
        return generation

    async def _generate(
        self,
        served: Served,
        body: Mapping[str, Any],
        media_type: str | None,
        also: Iterable[str],
        within_s: float,
    ) -> Generation:
        begin = time.perf_counter()
        request = parse(served.request, body, also)
        wanted = served.media_type(media_type)
        seeds = seeds_of(request)
        with served.admitted(request.n):
            rows = await self._in_pool(lambda: [_prepare(served.plugin, request, seed) for seed in seeds])
            prepared = time.perf_counter()
            batched = await asyncio.wrap_future(served.scheduler.submit(rows, within_s))
            computed = time.perf_counter()
            media = await self._rendered(served.plugin, batched.rows, request, wanted)
        times = (prepared - begin, batched.queue_s, batched.compute_s, time.perf_counter() - computed)
        return Generation(
            id=f"gen-{uuid.uuid4().hex}",
            model=served.record.name,
            created=int(time.time()),
            seeds=seeds,
            media=media,
            stages_s=dict(zip(STAGES, times, strict=True)),
            batch_rows=batched.batch_rows,
        )

    async def _rendered(
        self, plugin: AnyPlugin, rows: Sequence[Arrays], request: Request, wanted: str
    ) -> list[Media]:
        """One Media a row, in order, encoded by all encoder threads."""
        share = -(-len(rows) // self.settings.encoders)
        parts = [rows[start : start + share] for start in range(0, len(rows), share)]
        rendered = await asyncio.gather(
            *(
                self._in_pool(lambda part=part: [_render(plugin, row, request, wanted) for row in part])
                for part in parts
            )
        )
        return [media for part in rendered for media in part]

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._encoders, work)

    def _count(self, served: Served, generation: Generation) -> None:
        labels = (served.record.name, served.plugin.content)
        self.metrics.outputs.labels(*labels).inc(len(generation.media))
        self.metrics.output_bytes.labels(*labels).inc(sum(len(media.body) for media in generation.media))
        self.metrics.request_seconds.labels(served.record.name).observe(sum(generation.stages_s.values()))
        for stage, seconds in generation.stages_s.items():
            self.metrics.stage_seconds.labels(served.record.name, stage).observe(seconds)

    def _publish_state(self) -> None:
        for plugin in self.registry.plugins.values():
            self.metrics.plugin_up.labels(plugin.name).set(plugin.state == "serving")
        for name, served in self._served.items():
            labels = (
                name,
                served.plugin.content,
                served.plugin.model.digest[:12],
                served.plugin.session.device,
            )
            self.metrics.model_info.labels(*labels).set(1)
            self.metrics.gpu_fallback.labels(name).set(served.plugin.session.fell_back)


def _prepare(plugin: AnyPlugin, request: Request, seed: int) -> Arrays:
    with _blamed("prepare"):
        return prepare_row(plugin, request, seed)


def _render(plugin: AnyPlugin, row: Arrays, request: Request, media_type: str) -> Media:
    with _blamed("render"):
        return plugin.render(row, request, media_type)


class _blamed:  # noqa: N801 - reads as a statement
    """Turns what a plugin's step raises into GenerationFailed; what is already ours passes."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, BrigantineError):
            raise GenerationFailed(f"{self._step}() raised {type(error).__name__}: {error}") from error
