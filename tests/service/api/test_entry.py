import logging

import pytest
from brigantine.api import ACCESS, Entry, Host
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.service.toys import plugin_of


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
        ("GET", "/v1/models/nine", 404, "model_not_found"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/images/generations", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("GET", "/docs/assets/nothing.js", 404, "not_found"),
    ],
)
def test_every_wrong_path_and_method_is_openais_error_object(
    client: TestClient, method: str, path: str, status: int, code: str
):
    answer = client.request(method, path)

    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code


def test_every_answer_has_a_request_id_of_its_own(client: TestClient):
    ids = {client.get(path).headers["x-request-id"] for path in ("/livez", "/livez", "/nowhere", "/metrics")}

    assert len(ids) == 4


@pytest.mark.parametrize(("sent", "kept"), [("abc-123", True), ("x" * 129, False), ("two words", False)])
def test_a_sane_request_id_of_the_client_is_kept(client: TestClient, sent: str, kept: bool):
    assert (client.get("/livez", headers={"x-request-id": sent}).headers["x-request-id"] == sent) is kept


def test_a_body_over_the_limit_is_413_whether_announced_or_not(client: TestClient):
    announced = client.post("/v1/images/generations", content=b"x" * 2_000_000)
    streamed = client.post("/v1/images/generations", content=(b"x" * 100_000 for _ in range(20)))

    for answer in (announced, streamed):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "expected at most 1048576 bytes" in announced.json()["error"]["message"]


def test_while_it_stops_new_work_is_503_and_no_connection_is_kept(client: TestClient, host: Host):
    host.stopping = True

    for method, path in (("GET", "/readyz"), ("GET", "/v1/models"), ("POST", "/v1/models/mnist/generate")):
        answer = client.request(method, path, json={} if method == "POST" else None)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["connection"] == "close"
        assert "is stopping" in answer.json()["error"]["message"]
    for path in ("/livez", "/metrics"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_before_the_engine_runs_everything_but_livez_is_503_with_retry_after():
    with TestClient(Entry(Starlette(), Host())) as client:  # type: ignore[arg-type]
        assert client.get("/livez").status_code == 200
        for path in ("/readyz", "/v1/models", "/metrics", "/openapi.json"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "loading its models" in answer.json()["error"]["message"]


def test_a_fault_of_ours_is_500_without_its_details(
    client: TestClient, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert host.engine is not None
    monkeypatch.setattr(host.engine.metrics, "exposition", lambda: 1 / 0)

    answer = client.get("/metrics")

    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text


def test_what_a_plugin_raises_is_in_the_log_under_the_requests_id(
    client: TestClient, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    assert host.engine is not None
    monkeypatch.setattr(plugin_of(host.engine), "render", lambda *args: 1 / 0)

    answer = client.post("/v1/models/tiny/generate", json={}, headers={"x-request-id": "mine"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "mine" in record.getMessage()
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_method_names_the_right_ones(client: TestClient):
    assert client.delete("/v1/models").headers["allow"] == "GET, HEAD"


def test_a_path_cannot_forge_a_line_of_the_log(
    client: TestClient, host: Host, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, ACCESS)
    client.get("/v1/models/x%0aCRITICAL%20forged%1b[31m")

    assert host.access is not None
    host.access.flush()

    [record] = [record for record in caplog.records if record.name == ACCESS]
    assert " GET /v1/models/x%0ACRITICAL%20forged%1B%5B31m 404 " in record.getMessage()
    assert len(record.getMessage().splitlines()) == 1


def test_one_line_of_access_log_a_request(client: TestClient, host: Host, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, ACCESS)
    for request_id in ("mine", "another"):
        client.get("/livez", headers={"x-request-id": request_id})
    log, host.access = host.access, None
    client.get("/livez")
    assert log is not None
    log.flush()

    [record] = [record for record in caplog.records if record.name == ACCESS]
    first, second = record.getMessage().splitlines()
    assert " GET /livez 200 " in first
    assert (first.split()[-1], second.split()[-1]) == ("mine", "another")
