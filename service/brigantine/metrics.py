"""Every metric of the product.

`prometheus_client` reads PROMETHEUS_MULTIPROC_DIR once, when it is imported, and BentoML sets that in its
workers only. So it is imported inside the factory, which runs in the worker, and never at the top of a
module that the service module imports.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["STAGES", "Metrics"]

STAGES = ("prepare", "queue", "compute", "encode")
"""The parts of a request's time, in order."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters, gauges and histograms with bounded labels: model, content, stage, status, plugin, digest, device."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415

        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        def gauge(
            name: str, what: str, mode: Literal["livesum", "livemax", "livemin"], *labels: str
        ) -> Gauge:
            return Gauge(name, what, labels, multiprocess_mode=mode, registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, what, labels, buckets=buckets, registry=registry)

        self.requests = counter(
            "brigantine_requests_total",
            "Requests that reached a model, by the HTTP status of their answer.",
            "model",
            "content",
            "status",
        )
        self.outputs = counter("brigantine_outputs_total", "Finished media.", "model", "content")
        self.output_bytes = counter(
            "brigantine_output_bytes_total", "Bytes of finished media.", "model", "content"
        )
        self.request_seconds = histogram(
            "brigantine_request_seconds", "Seconds from a request to its finished media.", _SECONDS, "model"
        )
        self.stage_seconds = histogram(
            "brigantine_stage_seconds",
            f"Seconds of each stage of a request: {', '.join(STAGES)}.",
            _SECONDS,
            "model",
            "stage",
        )
        self.batch_rows = histogram("brigantine_batch_rows", "Rows in each batch that ran.", _ROWS, "model")
        self.batch_seconds = histogram(
            "brigantine_batch_seconds", "Seconds of each batch.", _SECONDS, "model"
        )
        self.in_flight = gauge(
            "brigantine_in_flight", "Requests taken and not yet answered.", "livesum", "model"
        )
        self.queue_rows = gauge("brigantine_queue_rows", "Rows that wait for a thread.", "livesum", "model")
        self.model_info = gauge(
            "brigantine_model_info",
            "1 for each model in service, with its digest and device.",
            "livemax",
            "model",
            "content",
            "digest",
            "device",
        )
        self.gpu_fallback = gauge(
            "brigantine_gpu_fallback",
            "1 for a model that runs on the CPU although CUDA was to be had.",
            "livemax",
            "model",
        )
        self.plugin_up = gauge(
            "brigantine_plugin_up",
            "1 for a plugin that serves, 0 for one that was rejected.",
            "livemin",
            "plugin",
        )

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, summed over worker processes, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        return generate_latest(self._merged()), CONTENT_TYPE_LATEST

    def _merged(self) -> CollectorRegistry:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return self._registry
        from prometheus_client import CollectorRegistry, multiprocess  # noqa: PLC0415

        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return merged
