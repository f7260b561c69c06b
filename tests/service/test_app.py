"""What is decided before any process starts."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn.config
import uvloop
from bentoml._internal.configuration.containers import BentoMLContainer
from brigantine.api import Entry
from brigantine.api.access import ACCESS
from brigantine.api.direct import DirectProtocol
from brigantine.app import Brigantine, preflight
from brigantine.session import RuntimeMissing, runtime
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def nothing_is_logged_that_was_not() -> Iterator[None]:
    """The service sets up its log when it starts; later tests of this process are not to write one."""
    logs = {name: logging.getLogger(name) for name in ("brigantine", ACCESS)}
    before = {name: (log.level, log.propagate, [*log.handlers]) for name, log in logs.items()}
    yield
    for name, (level, propagate, handlers) in before.items():
        logs[name].setLevel(level)
        logs[name].propagate = propagate
        logs[name].handlers = handlers


def test_nothing_of_bentomls_stands_around_the_way_in():
    """The seam: BentoML serves what `to_asgi` of the service's class returns, and our layer is the outermost one."""
    app = cast(Any, Brigantine).to_asgi()

    assert isinstance(app, Entry)
    assert isinstance(app._app, Starlette)  # BentoML's own, for its start and its stop
    with TestClient(app) as client:  # runs both, for a service without a model folder
        assert client.get("/v1/models/mnist").json()["id"] == "mnist"
        assert client.get("/healthz").status_code == 404  # BentoML's, which is not reached


def test_bentomls_worker_runs_in_a_loop_that_takes_its_share_of_the_connections(
    monkeypatch: pytest.MonkeyPatch,
):
    """The seam: BentoML's worker has uvicorn choose its event loop, and uvicorn asks a table for it."""
    monkeypatch.setitem(uvicorn.config.LOOP_FACTORIES, "auto", None)
    app = cast(Any, Brigantine).to_asgi()

    assert (
        uvicorn.Config(app).get_loop_factory() is uvloop.new_event_loop
    )  # this process has no others beside it
    assert uvicorn.config.LOOP_FACTORIES["auto"] == "brigantine.fair:loops"


def test_bentomls_worker_speaks_http_by_our_protocol(monkeypatch: pytest.MonkeyPatch):
    """The seam: BentoML's worker has uvicorn choose its protocol, and uvicorn asks a table for it."""
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", None)
    app = cast(Any, Brigantine).to_asgi()
    config = uvicorn.Config(app)
    config.load()

    protocol: Any = config.http_protocol_class
    assert (protocol.func, protocol.args) == (DirectProtocol, (app,))


def test_bentomls_spans_are_there_when_its_configuration_asks_for_them(monkeypatch: pytest.MonkeyPatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    wanted = {"services": {"brigantine": {"tracing": {"sample_rate": 1.0}}}}
    monkeypatch.setenv("BENTOML_CONFIG_OVERRIDES", json.dumps(wanted))
    BentoMLContainer.tracer_provider.set(provider)
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "uvicorn's")
    try:
        app = cast(Any, Brigantine).to_asgi()
        TestClient(app).get("/livez")
        assert uvicorn.config.HTTP_PROTOCOLS["auto"] == "uvicorn's", (
            "a request that passed by would have no span"
        )
    finally:
        BentoMLContainer.tracer_provider.reset()
        monkeypatch.undo()
        cast(Any, Brigantine).inject_config()

    spans = [span.name for span in exporter.get_finished_spans()]
    assert "GET /livez" in spans


def test_a_damaged_model_does_not_hide_that_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tiny_model(tmp_path, "a-bad-one") / "model.onnx").write_bytes(b"damaged")
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", str(tmp_path))
    assert preflight().models_dir == tmp_path

    monkeypatch.setenv("BRIGANTINE_REQUIRE_GPU", "1")
    monkeypatch.setattr(runtime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeMissing, match="a GPU is required"):
        preflight()
