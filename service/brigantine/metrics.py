"""Every metric of the product.

Several workers count in files of their own, in the folder PROMETHEUS_MULTIPROC_DIR, and whoever is asked adds them up
(https://prometheus.github.io/client_python/multiprocess/). `prometheus_client` looks for that variable once, when it is
imported, and it is set in the workers only. So it is imported inside the factory, which runs there, and never at the
top of a module that the service module imports.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .job import Job
from .station import Made, Report
from .usage import Usage, usage_of

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["STAGES", "Metrics", "ModelMetrics", "observe_all"]

STAGES = ("queue", "prepare", "compute", "encode")
"""The parts of a request's time, in order."""

_MADE = 200
"""The HTTP status of an answer with media."""
_SHOW_AFTER_S = 0.05
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "brigantine_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, with its buckets
_GEN_AI = "gen_ai_server_"
_GEN_AI_LABELS = "gen_ai_operation_name gen_ai_provider_name gen_ai_request_model"
_DURATION_S = tuple(0.01 * 2**power for power in range(14))
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


class Metrics:
    """Counters, gauges and histograms with bounded labels: model, content, stage, status, plugin, digest, device.

    Args:
        counting: whether generations are counted and timed, or only what is in service is shown.
    """

    def __init__(self, counting: bool = True) -> None:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        self.counting = counting
        self._models: list[ModelMetrics] = []
        self._registry = CollectorRegistry()
        make = _Factory(self._registry)
        self.requests = make.counter(
            "requests_total",
            "Requests that reached a model, by the HTTP status of their answer.",
            "model content status",
        )
        self.outputs = make.counter("outputs_total", "Finished media.", "model content")
        self.output_bytes = make.counter("output_bytes_total", "Bytes of finished media.", "model content")
        self.request_seconds = make.histogram(
            "request_seconds", "Seconds from a request to its finished media.", _SECONDS, "model"
        )
        self.stage_seconds = make.histogram(
            "stage_seconds",
            "Seconds that a request waited (queue), and seconds of each stage of a batch: "
            f"{', '.join(STAGES[1:])}.",
            _SECONDS,
            "model stage",
        )
        self.batch_rows = make.histogram("batch_rows", "Rows in each batch that ran.", _ROWS, "model")
        self.steps = _Steps(make)
        self.in_flight = make.gauge("in_flight", "Requests taken and not yet answered.", "model", "livesum")
        self.queue_rows = make.gauge("queue_rows", "Rows that wait to be made.", "model", "livesum")
        self.model_info = make.gauge(
            "model_info",
            "1 for each model in service, with its digest and device.",
            "model content digest device",
            "livemax",
        )
        self.gpu_fallback = make.gauge(
            "gpu_fallback",
            "1 for a model that runs on the CPU although CUDA was to be had.",
            "model",
            "livemax",
        )
        self.resting = make.gauge(
            "model_resting", "1 for a model that failed too often and rests.", "model", "livemax"
        )
        self.plugin_up = make.gauge(
            "plugin_up", "1 for a plugin that serves, 0 for one that does not.", "plugin", "livemin"
        )

    def of(
        self,
        model: str,
        content: str,
        waiting: Callable[[], int],
        cache_used: Callable[[], float | None] = lambda: None,
        steps: bool = False,
    ) -> ModelMetrics:
        """The part that one model fills; see there."""
        self._models.append(ModelMetrics(self, model, content, waiting, cache_used, steps))
        return self._models[-1]

    def exposition(self) -> tuple[bytes, str]:
        """All metrics of all workers in Prometheus' text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        for model in self._models:
            model.show()
        folder = os.environ.get(_MULTIPROCESS)
        registry = self._registry if folder is None else _all_workers(Path(folder))
        return generate_latest(registry), CONTENT_TYPE_LATEST


class ModelMetrics:
    """What one model counts, its labels looked up once: that costs more than counting.

    Args:
        metrics: where it is counted.
        model: its name.
        content: what it makes.
        waiting: says how many rows wait.
        cache_used: says which share of its cache is used, if it has one.
        steps: whether its content is made in steps, which have times of their own.
    """

    def __init__(
        self,
        metrics: Metrics,
        model: str,
        content: str,
        waiting: Callable[[], int],
        cache_used: Callable[[], float | None],
        steps: bool,
    ) -> None:
        self._counting = metrics.counting
        self._waiting = waiting
        self._cache_used = cache_used
        self._show_cache_used = lru_cache(
            partial(metrics.steps.cache_used.labels, model)
        )  # of those that have one
        self._steps = _ModelSteps(metrics.steps, model) if steps else None
        self._flying = 0
        self._showing = False
        self._requests = lru_cache(partial(metrics.requests.labels, model, content))  # by status
        self._outputs = metrics.outputs.labels(model, content)
        self._output_bytes = metrics.output_bytes.labels(model, content)
        self._request_seconds = metrics.request_seconds.labels(model)
        self._queue, self._prepare, self._compute, self._encode = (
            metrics.stage_seconds.labels(model, stage) for stage in STAGES
        )
        self._batch_rows = metrics.batch_rows.labels(model)
        self._in_flight = metrics.in_flight.labels(model)
        self._queue_rows = metrics.queue_rows.labels(model)
        self._resting = metrics.resting.labels(model)

    def resting(self, resting: bool) -> None:
        """Whether the model rests."""
        self._resting.set(resting)

    def begin(self) -> None:
        """A request has come."""
        self._flying += 1
        self._show_soon()

    def end(self, status: int) -> None:
        """A request is answered with this HTTP status; one that was made is counted with its batch."""
        self._flying -= 1
        if self._counting and status != _MADE:
            self._requests(status).inc()
        self._show_soon()

    def batch(self, report: Report, finished: Sequence[Job]) -> None:
        """A batch has run, and these requests have become media. They are counted before they are answered."""
        if not self._counting:
            return
        if finished:
            self._made(finished)
        self._prepare.observe(report.prepare_s)
        observe_all(self._batch_rows, [step.rows for step in report.steps])
        observe_all(self._compute, [step.compute_s for step in report.steps])
        observe_all(self._encode, [step.encode_s for step in report.steps])
        self._show_soon()

    def show(self) -> None:
        """Show what is in work."""
        self._showing = False
        self._in_flight.set(self._flying)
        self._queue_rows.set(self._waiting())
        if (used := self._cache_used()) is not None:
            self._show_cache_used().set(used)

    def _made(self, jobs: Sequence[Job]) -> None:
        now = time.perf_counter()
        made = [row for job in jobs for row in job.made.values()]
        self._requests(_MADE).inc(len(jobs))
        self._outputs.inc(len(made))
        self._output_bytes.inc(sum(len(row.media.body) for row in made))
        if self._steps is not None:
            for job in jobs:
                self._steps.made(job, now)
        if len(made) == len(jobs):  # one row each, as most have
            taken_s = [row.taken_s for row in made]
        else:
            taken_s = [min(row.taken_s for row in job.made.values()) for job in jobs]
        observe_all(self._queue, [at_s - job.submitted_s for at_s, job in zip(taken_s, jobs, strict=True)])
        observe_all(self._request_seconds, [now - job.submitted_s for job in jobs])

    def _show_soon(self) -> None:
        """Show what is in work to the other workers, once for all that happens in a moment."""
        if self._counting and not self._showing:
            self._showing = True
            asyncio.get_running_loop().call_later(_SHOW_AFTER_S, self.show)


class _Steps:
    """What is counted of content that is made in steps."""

    def __init__(self, make: _Factory) -> None:
        self.duration = make.gen_ai(
            "request_duration_seconds", "Seconds of a request to a model that takes steps.", _DURATION_S
        )
        self.first_token = make.gen_ai(
            "time_to_first_token_seconds",
            "Seconds until the first of a request could be shown.",
            _FIRST_TOKEN_S,
        )
        self.per_token = make.gen_ai(
            "time_per_output_token_seconds", "Seconds for each token of a text after the first.", _TOKEN_S
        )
        self.tokens = make.counter(
            "tokens_total", "Tokens of prompts (input) and of texts (output).", "model kind"
        )
        self.cache_used = make.gauge(
            "cache_used_ratio", "The share of a language model's cache that is used.", "model", "livemax"
        )


class _ModelSteps:
    """What one model counts of its steps."""

    def __init__(self, steps: _Steps, model: str) -> None:
        labels = "generate_content", "brigantine", model
        self._duration = steps.duration.labels(*labels)
        self._first_token = steps.first_token.labels(*labels)
        self._per_token = steps.per_token.labels(*labels)
        self._input, self._output = (steps.tokens.labels(model, kind) for kind in ("input", "output"))

    def made(self, job: Job, now: float) -> None:
        """A request is finished."""
        rows = job.made.values()
        self._duration.observe(now - job.submitted_s)
        self._first_token.observe(min(row.shown_s for row in rows) - job.submitted_s)
        usages = [(row, usage) for row in rows if (usage := usage_of(row.media)) is not None]
        self._input.inc(
            max((usage.prompt_tokens for _, usage in usages), default=0)
        )  # all rows have one prompt
        for row, usage in usages:
            self._output.inc(usage.completion_tokens)
            if (seconds := _per_token_s(row, usage)) is not None:
                self._per_token.observe(seconds)


def observe_all(histogram: Histogram, amounts: Sequence[float]) -> None:
    """What `Histogram.observe` does for each amount, at once: one by one they cost some 3% of a small image."""
    parts: Any = histogram
    parts._sum.inc(sum(amounts))
    bounds = parts._upper_bounds
    for bucket, count in Counts([bisect_left(bounds, amount) for amount in amounts]).items():
        parts._buckets[bucket].inc(count)  # the last bound is infinite


def _per_token_s(row: Made, usage: Usage) -> float | None:
    """Of the tokens after the first; None where these cannot be told apart, since all of them came at once."""
    rest = usage.completion_tokens - 1
    return (row.computed_s - row.shown_s) / rest if rest > 0 and row.computed_s > row.shown_s else None


def _all_workers(folder: Path) -> CollectorRegistry:
    """What the workers of this service have counted, those that have ended included."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415
    from prometheus_client.multiprocess import (  # noqa: PLC0415
        MultiProcessCollector,
        mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
    )

    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _alive(pid):
            with suppress(FileNotFoundError):  # another worker has just done it
                mark_process_dead(pid, str(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, which has the number now
    return True


class _Factory:
    """Makes the metrics of one registry; the labels of each are words with spaces between."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, what: str, labels: str) -> Counter:
        from prometheus_client import Counter  # noqa: PLC0415

        return Counter(_PREFIX + name, what, labels.split(), registry=self._registry)

    def gauge(
        self, name: str, what: str, labels: str, mode: Literal["livemax", "livemin", "livesum"]
    ) -> Gauge:
        """`mode` says how those of several workers become one."""
        from prometheus_client import Gauge  # noqa: PLC0415

        return Gauge(_PREFIX + name, what, labels.split(), registry=self._registry, multiprocess_mode=mode)

    def gen_ai(self, name: str, what: str, buckets: Sequence[float]) -> Histogram:
        """One of OpenTelemetry's."""
        return self._histogram(_GEN_AI + name, what, buckets, _GEN_AI_LABELS)

    def histogram(self, name: str, what: str, buckets: Sequence[float], labels: str) -> Histogram:
        return self._histogram(_PREFIX + name, what, buckets, labels)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], labels: str) -> Histogram:
        from prometheus_client import Histogram  # noqa: PLC0415

        return Histogram(name, what, labels.split(), buckets=buckets, registry=self._registry)
