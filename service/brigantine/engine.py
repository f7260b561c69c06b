"""The engine: a request's journey, without HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import getrandbits
from typing import Any, NamedTuple

from .breaker import Attempt, Breaker
from .cores import Cores
from .discovery import AnyPlugin
from .errors import BrigantineError, DeadlineExceeded, NotAcceptable
from .job import Job, OnPart
from .lane import ThreadLane
from .media import Media
from .metrics import STAGES, Metrics
from .pages import use_huge_pages
from .plugin import Plugin
from .process import ProcessLane
from .registry import ModelRecord, Registry
from .request import parse, request_type, seed_of
from .scheduler import Scheduler
from .settings import Settings, cores
from .station import Made, Station

__all__ = ["GONE", "Caller", "Engine", "Generation", "Making", "Served"]

log = logging.getLogger(__name__)

_WAKE_S = 0.002
"""A CPU's cores have other workers' threads to run; one more of this process pays only for a request that lasts."""
GONE = 499
"""The client hung up; nginx's word for it."""
_PARTS_S = 0.005
"""How long parts may wait for others before they are told: a fifth of what a stream waits, and some steps."""
_GPU_THREADS = 3
"""One thread's batch is on the device while the others prepare and encode theirs."""


class Generation(NamedTuple):
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


class Caller(NamedTuple):
    """Who asks, and how they wait for the answer."""

    timeout_s: float = math.inf
    """How long they will wait; the setting `timeout_s` when that is less."""
    size: int = 0
    """How many bytes they sent."""
    gone: asyncio.Future[Any] | None = None
    """Is done when they have hung up."""
    on_part: OnPart | None = None


_ANYBODY = Caller()


class Served:
    """A model in service: its plugin, its scheduler, and the type of its requests."""

    def __init__(
        self,
        record: ModelRecord,
        settings: Settings,
        metrics: Metrics,
        cores: Cores,
    ) -> None:
        assert record.plugin is not None and record.facts is not None, "only what was loaded is served"
        self.record = record
        self.plugin: type[AnyPlugin] = record.plugin
        plugin, facts, loaded = record.plugin, record.facts, record.loaded
        self.timeout_s = settings.timeout_s
        """How long a request may take."""
        self.request = request_type(plugin.params, f"{plugin.name.title()}Request", settings.max_n)
        self.metrics = metrics.of(
            record.name,
            plugin.content,
            lambda: self.scheduler.waiting,
            lambda: loaded.session.cache_used if isinstance(loaded, Plugin) else None,
            steps=plugin.takes_steps,
        )
        self.breaker = Breaker(record.name, settings.breaker_failures, self.metrics.resting)
        lanes = _lanes(record, settings)
        on_cpu = facts.device == "cpu"
        self.scheduler = Scheduler(
            lanes,
            # CPU cores gain from one batch each. A GPU runs one batch at a time and gains from large ones.
            parallel=len(lanes) if on_cpu else 1,
            max_batch=facts.max_batch,
            queue_rows=settings.queue_rows,
            queue_bytes=settings.queue_bytes,
            steps=plugin.takes_steps,
            cores=cores if on_cpu else None,
            wake_s=_WAKE_S if on_cpu else 0.0,
            on_report=self.metrics.batch,
        )

    def begin(
        self,
        body: Mapping[str, Any],
        media_type: str | None = None,
        caller: Caller = _ANYBODY,
        also: Iterable[str] = (),
    ) -> Making:
        """Begin to make what `body` asks for; as `Engine.generate`, for who does not wait in a task."""
        begin_s = time.perf_counter()
        self.metrics.begin()
        attempt: Attempt | None = None
        try:
            attempt = self.breaker.attempt()
            self.scheduler.check()  # before any work for what has no place
            request = parse(self.request, body, also)
            kind = self.media_type(media_type)
            job = Job(body, request, seed_of(request), kind, request.n, caller.size, caller.on_part)
            within_s = min(caller.timeout_s, self.timeout_s)
            self.scheduler.submit(job, within_s)
        except BaseException as error:
            self.end(attempt, error)
            raise
        if caller.gone is not None:
            done = job.done  # the job has all that was made, and may be over long before they hang up
            caller.gone.add_done_callback(lambda _: done.cancel())
        return Making(self, attempt, job, begin_s, within_s)

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

    def end(self, attempt: Attempt | None, error: BaseException | None) -> None:
        """A request is over: made, or failed by this error."""
        if attempt is not None:
            attempt.end(error)
        if error is None:
            self.metrics.end(200)
        elif isinstance(error, asyncio.CancelledError):
            self.metrics.end(GONE)
        else:
            self.metrics.end(error.status if isinstance(error, BrigantineError) else BrigantineError.status)

    def bucket(self, rows: int) -> int:
        """How many rows a batch of `rows` is padded to, as far as this process knows."""
        loaded = self.record.loaded
        return loaded.session.bucket(rows) if isinstance(loaded, Plugin) else rows


class Making:
    """A request that is being made."""

    def __init__(self, served: Served, attempt: Attempt, job: Job, begin_s: float, within_s: float) -> None:
        self.done = job.done
        """Finishes, or fails, when it is over. Cancel it when nobody waits for it any more."""
        self._served = served
        self._attempt = attempt
        self._job = job
        self._begin_s = begin_s
        self._within_s = within_s
        self._deadline = job.done.get_loop().call_later(within_s, self._expire)
        self.then: Callable[[Making], object] | None = None
        """Called when it is over, before those who wait for `done`."""
        job.then = self._end

    def generation(self) -> Generation:
        """What has become of it, once it is done.

        Raises:
            DeadlineExceeded, GenerationFailed, NotReady: it has failed.
            asyncio.CancelledError: it was cancelled.
        """
        self.done.result()
        now = time.perf_counter()
        job = self._job
        rows = [job.made[index] for index in range(job.rows)]
        taken_s, started_s, computed_s, batch_rows = _span(rows)
        stages_s = (taken_s - job.submitted_s, started_s - taken_s, computed_s - started_s, now - computed_s)
        return Generation(
            f"gen-{getrandbits(128):032x}",
            self._served.record.name,
            int(time.time()),
            [row.seed for row in rows],
            job.media,
            dict(zip(STAGES, stages_s, strict=True)),
            now - self._begin_s,
            batch_rows,
            self._served.bucket(batch_rows),
        )

    def _expire(self) -> None:
        if not self.done.done():
            self.done.set_exception(
                DeadlineExceeded(
                    f"model {self._served.record.name!r} did not answer within {self._within_s:g} s "
                    "(BRIGANTINE_TIMEOUT_S or X-Request-Timeout-Ms, the shorter of the two); ask for fewer at a time, "
                    "or try again later"
                )
            )

    def _end(self) -> None:
        self._deadline.cancel()
        done, then = self.done, self.then
        self.then = None
        try:
            self._served.end(
                self._attempt, asyncio.CancelledError() if done.cancelled() else done.exception()
            )
        finally:  # whatever happens, they are told
            if then is not None:
                then(self)


def _span(rows: Sequence[Made]) -> tuple[float, float, float, int]:
    """Of the rows of a request: when the first was taken up and when it began, when the last one was computed, and the
    size of the largest batch.
    """
    if len(rows) == 1:  # most requests
        [row] = rows
        return row.taken_s, row.started_s, row.computed_s, row.batch_rows
    return (
        min(row.taken_s for row in rows),
        min(row.started_s for row in rows),
        max(row.computed_s for row in rows),
        max(row.batch_rows for row in rows),
    )


class Engine:
    """All models of a registry, running. Make one with `Engine.start`, and `close` it."""

    def __init__(self, registry: Registry, settings: Settings, cores_file: Path | None = None) -> None:
        self.registry = registry
        self.settings = settings
        self._cores = Cores(cores(), cores_file)
        self.metrics = Metrics(settings.metrics)
        self._served = {
            name: Served(record, settings, self.metrics, self._cores)
            for name, record in registry.models.items()
            if record.loaded is not None
        }
        self._publish_state()

    @classmethod
    def start(cls, settings: Settings, only: str | None = None, cores_file: Path | None = None) -> Engine:
        """Load every model (or `only` one), warm them up, and start their threads.

        Args:
            settings: how.
            only: the name of the only model to load.
            cores_file: where the workers of a service share out the cores, if there are others.
        """
        registry = Registry.load(settings, only)
        use_huge_pages()
        return cls(registry, settings, cores_file)

    def close(self) -> None:
        """Fail what is not finished, and end all threads and processes."""
        for served in self._served.values():
            served.scheduler.close()
        self._cores.close()

    def served(self, name: str) -> Served:
        """A model in service; raises what `Registry.find` raises."""
        self.registry.find(name)
        return self._served[name]

    async def generate(
        self,
        model: str,
        body: Mapping[str, Any],
        media_type: str | None = None,
        caller: Caller = _ANYBODY,
        also: Iterable[str] = (),
    ) -> Generation:
        """Make what `body` asks for. Cancel it, or finish `caller.gone`, when nobody waits for it any more.

        Args:
            model: the name of a model in service.
            body: the plugin's Params with the host's `n` and `seed`.
            media_type: one of the plugin's types, or None for its default.
            caller: who asks.
            also: fields that have been taken out of the body, named in the hint for an unknown one.

        Raises:
            ModelNotFound, NotReady, BadParams, NotAcceptable, QueueFull, DeadlineExceeded, GenerationFailed.
            asyncio.CancelledError: `caller.gone` is done.
        """
        making = self.served(model).begin(body, media_type, caller, also)
        await making.done
        return making.generation()

    def _publish_state(self) -> None:
        for plugin in self.registry.plugins.values():
            self.metrics.plugin_up.labels(plugin.name).set(plugin.state == "serving")
        for name, record in self.registry.models.items():
            if record.model is None or record.plugin is None or record.facts is None:
                continue
            labels = name, record.plugin.content, record.model.digest[:12], record.facts.device
            self.metrics.model_info.labels(*labels).set(1)
            self.metrics.gpu_fallback.labels(name).set(record.facts.fell_back)


def _lanes(record: ModelRecord, settings: Settings) -> list[ThreadLane] | list[ProcessLane]:
    if isinstance(record.loaded, ProcessLane):
        return [record.loaded]
    assert record.loaded is not None and record.facts is not None, "only what was loaded is served"
    threads = settings.threads if record.facts.device == "cpu" else _GPU_THREADS
    if record.loaded.takes_steps:
        threads = (
            1  # rows that are stepped together cost little more than one; another core has another worker
        )
    turn = threading.Lock()
    parts_s = min(_PARTS_S, settings.stream_interval_s)
    return [
        ThreadLane(Station(record.loaded, settings.max_n, turn), record.facts.max_batch, parts_s)
        for _ in range(threads)
    ]
