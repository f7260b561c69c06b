"""Every metric of the product.

`prometheus_client` reads PROMETHEUS_MULTIPROC_DIR once, when it is imported, and BentoML sets that in its
workers only. So it is imported inside the factory, which runs in the worker, and never at the top of a
module that the service module imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["STAGES", "Metrics"]

STAGES = ("prepare", "queue", "compute", "encode")
"""The parts of a request's time, in order."""

_PREFIX = "brigantine_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters, gauges and histograms with bounded labels: model, content, stage, status, plugin, digest, device."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

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
        self.queue_rows = make.gauge("queue_rows", "Rows that wait for a thread.", "model")
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

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        return generate_latest(self._registry), CONTENT_TYPE_LATEST


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
