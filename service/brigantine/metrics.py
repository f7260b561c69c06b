"""Every metric of the product.

`prometheus_client` reads PROMETHEUS_MULTIPROC_DIR once, when it is imported, and BentoML sets that in its
workers only. So it is imported inside the factory, which runs in the worker, and never at the top of a
module that the service module imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from .media import Media

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["STAGES", "Metrics", "ModelMetrics"]

STAGES = ("queue", "prepare", "compute", "encode")
"""The parts of a request's time, in order."""

_PREFIX = "brigantine_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters, gauges and histograms with bounded labels: model, content, stage, status, plugin, digest, device.

    Args:
        counting: whether generations are counted and timed, or only what is in service is shown.
    """

    def __init__(self, counting: bool = True) -> None:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        self.counting = counting
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
            f"Seconds of each stage of a request: {', '.join(STAGES)}.",
            _SECONDS,
            "model stage",
        )
        self.batch_rows = make.histogram("batch_rows", "Rows in each batch that ran.", _ROWS, "model")
        self.batch_seconds = make.histogram("batch_seconds", "Seconds of each batch.", _SECONDS, "model")
        self.in_flight = make.gauge("in_flight", "Requests taken and not yet answered.", "model")
        self.queue_rows = make.gauge("queue_rows", "Rows that wait for a process or thread.", "model")
        self.model_info = make.gauge(
            "model_info",
            "1 for each model in service, with its digest and device.",
            "model content digest device",
        )
        self.gpu_fallback = make.gauge(
            "gpu_fallback", "1 for a model that runs on the CPU although CUDA was to be had.", "model"
        )
        self.plugin_up = make.gauge(
            "plugin_up", "1 for a plugin that serves, 0 for one that was rejected.", "plugin"
        )

    def of(self, model: str, content: str) -> ModelMetrics:
        """The part that one model fills."""
        return ModelMetrics(self, model, content)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class ModelMetrics:
    """What one model counts, its labels looked up once: that costs more than counting."""

    def __init__(self, metrics: Metrics, model: str, content: str) -> None:
        self._counting = metrics.counting
        self._requests = lru_cache(partial(metrics.requests.labels, model, content))  # by status
        self._outputs = metrics.outputs.labels(model, content)
        self._output_bytes = metrics.output_bytes.labels(model, content)
        self._request_seconds = metrics.request_seconds.labels(model)
        self._stage_seconds = {stage: metrics.stage_seconds.labels(model, stage) for stage in STAGES}
        self._batch_rows = metrics.batch_rows.labels(model)
        self._batch_seconds = metrics.batch_seconds.labels(model)
        self._in_flight = metrics.in_flight.labels(model)
        self._queue_rows = metrics.queue_rows.labels(model)

    def watch(self, waiting: Callable[[], float]) -> None:
        """Where to ask how many rows wait."""
        self._queue_rows.set_function(waiting)

    def begin(self) -> None:
        """A request has come."""
        if self._counting:
            self._in_flight.inc()

    def end(self, status: int) -> None:
        """A request is answered with this HTTP status."""
        if self._counting:
            self._in_flight.dec()
            self._requests(str(status)).inc()

    def batch(self, rows: int, seconds: float) -> None:
        """A batch has run."""
        if self._counting:
            self._batch_rows.observe(rows)
            self._batch_seconds.observe(seconds)

    def made(self, media: Sequence[Media], total_s: float, stages_s: Mapping[str, float]) -> None:
        """A request has become these media."""
        if not self._counting:
            return
        self._outputs.inc(len(media))
        self._output_bytes.inc(sum(len(one.body) for one in media))
        self._request_seconds.observe(total_s)
        for stage, seconds in stages_s.items():
            self._stage_seconds[stage].observe(seconds)


class _Factory:
    """Makes the metrics of one registry; the labels of each are words with spaces between."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, what: str, labels: str) -> Counter:
        from prometheus_client import Counter  # noqa: PLC0415

        return Counter(_PREFIX + name, what, labels.split(), registry=self._registry)

    def gauge(self, name: str, what: str, labels: str) -> Gauge:
        from prometheus_client import Gauge  # noqa: PLC0415

        return Gauge(_PREFIX + name, what, labels.split(), registry=self._registry)

    def histogram(self, name: str, what: str, buckets: Sequence[float], labels: str) -> Histogram:
        from prometheus_client import Histogram  # noqa: PLC0415

        return Histogram(_PREFIX + name, what, labels.split(), buckets=buckets, registry=self._registry)
