"""Every metric of the product.

`prometheus_client` reads PROMETHEUS_MULTIPROC_DIR once, when it is imported, and BentoML sets that in its
workers only. So it is imported inside the factory, which runs in the worker, and never at the top of a
module that the service module imports.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["STAGES", "Metrics"]

STAGES = ("prepare", "queue", "compute", "encode")
"""The parts of a request's time, in order."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters, gauges and histograms with bounded labels: model, content, stage, status code, reason."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415

        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "brigantine_requests_total",
            "Generation requests by the HTTP status of their answer.",
            ["model", "content", "status"],
            registry=registry,
        )
        self.outputs = Counter(
            "brigantine_outputs_total", "Finished media.", ["model", "content"], registry=registry
        )
        self.output_bytes = Counter(
            "brigantine_output_bytes_total",
            "Bytes of finished media.",
            ["model", "content"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "brigantine_request_seconds",
            "Seconds from a parsed request to its finished media.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "brigantine_stage_seconds",
            f"Seconds of each stage of a request: {', '.join(STAGES)}.",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "brigantine_batch_rows",
            "Rows in each batch that ran.",
            ["model"],
            buckets=_ROWS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "brigantine_batch_seconds",
            "Seconds of each batch that ran.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "brigantine_in_flight",
            "Requests that have been accepted and not answered.",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_info = Gauge(
            "brigantine_model_info",
            "1 for each model that is served, with its digest and the device it runs on.",
            ["model", "content", "digest", "device"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.plugin_up = Gauge(
            "brigantine_plugin_up",
            "1 for a plugin that serves, 0 for one that was rejected.",
            ["plugin"],
            multiprocess_mode="livemin",
            registry=registry,
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
