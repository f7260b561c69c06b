"""The engine: a request's journey, without HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import getrandbits
from typing import Any, cast

from .crew import Crew, Post
from .errors import BrigantineError, DeadlineExceeded, NotAcceptable
from .lane import ThreadLane
from .media import Media
from .metrics import STAGES, Metrics
from .plugin import Plugin
from .registry import AnyPlugin, ModelRecord, Registry
from .request import parse, request_type, seed_of
from .scheduler import Job, Scheduler
from .settings import Settings
from .station import Station

__all__ = ["Engine", "Generation", "Served"]

_GPU_THREADS = 3
"""One thread's batch is on the device while the others prepare and encode theirs."""


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
    """Seconds of each of `STAGES`. Of rows in several batches, `compute` is from the first one's begin to the last
    one's end."""
    total_s: float
    """Seconds from the parsed body until the answer can be written."""
    batch_rows: int
    """Rows in the largest batch that any of its rows ran in."""
    bucket: int
    """The rows that this batch was padded to."""


class Served:
    """A model in service: its plugin, its scheduler, and the type of its requests."""

    def __init__(
        self,
        record: ModelRecord,
        plugin: AnyPlugin,
        settings: Settings,
        metrics: Metrics,
        crew: Crew | None = None,
    ) -> None:
        self.record = record
        self.plugin = plugin
        self.request = request_type(plugin.params, f"{plugin.name.title()}Request", settings.max_n)
        self.metrics = metrics.of(record.name, plugin.content)
        on_cpu = plugin.session.device == "cpu"
        self.scheduler = Scheduler(
            _lanes(plugin, settings) if crew is None else crew.lanes(record.name),
            # CPU cores gain from one batch each. A GPU runs one batch at a time and gains from large ones.
            parallel=settings.threads if on_cpu else 1,
            # A row of a model that its company sways has the same bits in any company only when it has none.
            max_batch=min(settings.max_batch, plugin.model.manifest.max_batch) if record.invariant else 1,
            queue_rows=settings.queue_rows,
            queue_bytes=settings.queue_bytes,
            on_batch=self.metrics.batch,
        )
        self.metrics.watch(lambda: self.scheduler.waiting)

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
        self.metrics = Metrics(settings.metrics)
        posts = [_post(record, settings) for record in registry.models.values() if _crewed(record)]
        self._crew = Crew(posts, settings.threads) if settings.crew and posts else None
        self._served = {
            name: Served(
                record, record.plugin, settings, self.metrics, self._crew if _crewed(record) else None
            )
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
        if self._crew is not None:
            self._crew.close()

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
        size: int = 0,
        gone: asyncio.Future[Any] | None = None,
    ) -> Generation:
        """Make what `body` asks for. Cancel it, or finish `gone`, when nobody waits for it any more.

        Args:
            model: the name of a model in service.
            body: the plugin's Params with the host's `n` and `seed`.
            media_type: one of the plugin's types, or None for its default.
            timeout_s: how long the caller will wait; the setting `timeout_s` when that is less.
            also: fields that the caller has taken out of the body, named in the hint for an unknown one.
            size: how many bytes the body had.
            gone: is done when the caller has hung up.

        Raises:
            ModelNotFound, NotReady, BadParams, NotAcceptable, QueueFull, DeadlineExceeded, GenerationFailed.
            asyncio.CancelledError: `gone` is done.
        """
        served = self.served(model)
        begin = time.perf_counter()
        status = 500
        served.metrics.begin()
        try:
            request = parse(served.request, body, also)
            job = Job(body, seed_of(request), served.media_type(media_type), request.n, size)
            await _answer(served, job, min(timeout_s, self.settings.timeout_s), gone)
            status = 200
        except BrigantineError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = 499  # the client hung up; nginx's word for it
            raise
        finally:
            served.metrics.end(status)
        generation = _generation(served, job, begin)
        served.metrics.made(generation.media, generation.total_s, generation.stages_s)
        return generation

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


def _makes_at_once(plugin: AnyPlugin) -> bool:
    return type(plugin).step is cast("type[AnyPlugin]", Plugin).step


def _crewed(record: ModelRecord) -> bool:
    """Whether the crew may make it: at once, on a CPU. What is made in steps keeps its state where it runs."""
    plugin = record.plugin
    return plugin is not None and plugin.session.device == "cpu" and _makes_at_once(plugin)


def _lanes(plugin: AnyPlugin, settings: Settings) -> list[ThreadLane]:
    threads = settings.threads if plugin.session.device == "cpu" else _GPU_THREADS
    return [ThreadLane(Station(plugin, settings.max_n)) for _ in range(threads)]


def _post(record: ModelRecord, settings: Settings) -> Post:
    assert record.model is not None and record.plugin is not None, "only models in service are crewed"
    options = settings.session(record.name)
    return Post(
        record.name, record.model.path, record.model.source, type(record.plugin), options, settings.max_n
    )


async def _answer(served: Served, job: Job, within_s: float, gone: asyncio.Future[Any] | None) -> None:
    """Wait until the job is done, its deadline passes, or `gone` is done."""

    def expire() -> None:
        if not job.done.done():
            job.done.set_exception(
                DeadlineExceeded(
                    f"model {served.record.name!r} did not answer within {within_s:g} s (BRIGANTINE_TIMEOUT_S or "
                    "X-Request-Timeout-Ms, the shorter of the two); ask for fewer at a time, or try again later"
                )
            )

    served.scheduler.submit(job, within_s)
    timer = job.done.get_loop().call_later(within_s, expire)
    if gone is not None:
        gone.add_done_callback(lambda _: job.done.cancel())
    try:
        await job.done
    finally:
        timer.cancel()


def _generation(served: Served, job: Job, begin: float) -> Generation:
    now = time.perf_counter()
    rows = job.made.values()
    marks = (
        job.submitted_s,
        min(row.taken_s for row in rows),
        min(row.started_s for row in rows),
        max(row.computed_s for row in rows),
        now,
    )
    batch_rows = max(row.batch_rows for row in rows)
    return Generation(
        id=f"gen-{getrandbits(128):032x}",
        model=served.record.name,
        created=int(time.time()),
        seeds=job.seeds,
        media=job.media,
        stages_s={
            stage: until - since for stage, since, until in zip(STAGES, marks, marks[1:], strict=False)
        },
        total_s=now - begin,
        batch_rows=batch_rows,
        bucket=served.plugin.session.bucket(batch_rows),
    )
