import re
from types import SimpleNamespace
from typing import Any

import pytest
from brigantine.api import Host
from brigantine.api.openapi import document
from brigantine.engine import Engine
from brigantine.registry import ModelRecord
from brigantine.settings import Settings
from brigantine_image import ImageParams
from starlette.testclient import TestClient


def plugins(client: TestClient) -> dict[str, Any]:
    return {plugin["id"]: plugin for plugin in client.get("/v1/plugins").json()["data"]}


@pytest.mark.usefixtures("on_cpu")
def test_ready_names_the_models(client: TestClient):
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "models": {"tiny": "cpu"},
        "gpu_fallback": [],
        "rejected": {},
    }


def test_not_ready_when_no_model_can_be_served(client: TestClient, host: Host):
    assert host.engine is not None
    host.engine.registry.models = {"bad": ModelRecord("bad", "folder", reason="it is damaged")}

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert "it is damaged" in answer.json()["error"]["message"]


def test_plugins_are_listed_with_their_models(client: TestClient):
    plugin = plugins(client)["image"]

    assert (plugin["id"], plugin["state"], plugin["content"]) == ("image", "serving", "image")
    assert plugin["params"]["properties"].keys() == ImageParams.model_fields.keys()
    assert [model["id"] for model in plugin["models"]] == ["tiny"]


def test_one_plugin_is_shown_and_an_unknown_one_is_404(client: TestClient):
    assert client.get("/v1/plugins/image").json() == plugins(client)["image"]

    answer = client.get("/v1/plugins/smell")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "plugin_not_found")


def test_a_rejected_model_is_listed_under_its_own_plugin_only(client: TestClient, host: Host):
    assert host.engine is not None
    host.engine.registry.models["alien"] = ModelRecord(
        "alien", "folder", reason="no", plugin_name="telepathy"
    )

    plugin = plugins(client)["image"]
    assert [model["id"] for model in plugin["models"]] == ["tiny"]


def test_openapi_lists_the_params_of_every_model(client: TestClient):
    document = client.get("/openapi.json").json()

    native = document["paths"]["/v1/models/tiny/generate"]["post"]["requestBody"]["content"][
        "application/json"
    ]
    theirs = document["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]["application/json"]
    assert native["schema"]["properties"].keys() == ImageParams.model_fields.keys() | {"n", "seed"}
    assert theirs["schema"]["properties"].keys() > {"label", "prompt", "n", "seed", "model", "size"}
    assert document["openapi"] == "3.1.0"
    assert "text/plain" in document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]


def test_docs_work_without_the_internet(client: TestClient):
    page = client.get("/", follow_redirects=True)

    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 2
    for asset in assets:
        assert client.get(asset).status_code == 200


def test_metrics_are_prometheus_text(client: TestClient):
    client.post("/v1/models/tiny/generate", json={})

    answer = client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'brigantine_requests_total{content="image",model="tiny",status="200"} 1.0' in answer.text


def test_openapi_has_the_routes_for_text_where_there_is_some(texts: TestClient):
    document = texts.get("/openapi.json").json()

    older, chat = (document["paths"][f"/v1/{path}"]["post"] for path in ("completions", "chat/completions"))
    for route, own in ((older, "prompt"), (chat, "messages")):
        fields = route["requestBody"]["content"]["application/json"]["schema"]["properties"]
        assert {own, "model", "n", "seed", "stream", "temperature", "user"} <= fields.keys()
        assert (fields["pace_s"]["maximum"], fields["seed"]["anyOf"][0]["maximum"]) == (1, 2**53 - 1)
        assert fields["stream_options"]["anyOf"][0] == {"$ref": "#/components/schemas/StreamOptions"}
        assert list(route["responses"]["200"]["content"]) == ["application/json", "text/event-stream"]
    assert "StreamOptions" in document["components"]["schemas"]


def test_openapi_has_no_route_for_text_where_there_is_none(settings: Settings):
    engine = Engine.start(settings.model_copy(update={"plugins_allow": ("image",)}), only="tiny")
    try:
        assert not [path for path in document(engine)["paths"] if path.endswith("completions")]
    finally:
        engine.close()


def test_the_times_and_tokens_of_text_are_counted(texts: TestClient, prose: Engine):
    texts.post("/v1/completions", json={"prompt": "hello", "n": 2, "max_tokens": 5, "pace_s": 0.02})
    texts.post("/v1/completions", json={"prompt": "you", "max_tokens": 5, "stream": True, "pace_s": 0.02})
    texts.post("/v1/completions", json={"prompt": "refuse"})
    prose.registry.models["prose"].loaded.session.attach(SimpleNamespace(used=0.25))  # type: ignore[union-attr]

    text = texts.get("/metrics").text
    found = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.M)}
    labels = 'gen_ai_operation_name="generate_content",gen_ai_provider_name="brigantine",gen_ai_request_model="prose"'

    def histogram(name: str) -> tuple[float, float]:
        whole = f"gen_ai_server_{name}_seconds"
        return found[f"{whole}_count{{{labels}}}"], found[f"{whole}_sum{{{labels}}}"]

    assert found['brigantine_tokens_total{kind="input",model="prose"}'] == 5 + 3
    assert found['brigantine_tokens_total{kind="output",model="prose"}'] == 15
    assert found['brigantine_cache_used_ratio{model="prose"}'] == 0.25
    count, seconds = histogram("request_duration")
    assert (count, seconds >= 2 * 5 * 0.02) == (2, True)
    count, seconds = histogram("time_to_first_token")
    assert (count, 2 * 0.02 <= seconds < 2 * 4 * 0.02) == (2, True)
    count, seconds = histogram("time_per_output_token")
    assert (count, 3 * 0.01 < seconds < 3 * 0.03) == (3, True)


def test_what_is_made_at_once_has_no_times_of_tokens(client: TestClient):
    client.post("/v1/models/tiny/generate", json={})

    text = client.get("/metrics").text
    assert "gen_ai_server_request_duration_seconds" in text
    assert 'gen_ai_request_model="tiny"' not in text
    assert "brigantine_cache_used_ratio{" not in text
