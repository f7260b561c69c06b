import re

from brigantine.api import Host
from brigantine.registry import ModelRecord
from brigantine_image import ImageParams
from starlette.testclient import TestClient


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
    [plugin] = client.get("/v1/plugins").json()["data"]

    assert (plugin["id"], plugin["state"], plugin["content"]) == ("image", "serving", "image")
    assert plugin["params"]["properties"].keys() == ImageParams.model_fields.keys()
    assert [model["id"] for model in plugin["models"]] == ["tiny"]


def test_one_plugin_is_shown_and_an_unknown_one_is_404(client: TestClient):
    assert client.get("/v1/plugins/image").json() == client.get("/v1/plugins").json()["data"][0]

    answer = client.get("/v1/plugins/smell")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "plugin_not_found")


def test_a_rejected_model_is_listed_under_its_own_plugin_only(client: TestClient, host: Host):
    assert host.engine is not None
    host.engine.registry.models["alien"] = ModelRecord(
        "alien", "folder", reason="no", plugin_name="telepathy"
    )

    [plugin] = client.get("/v1/plugins").json()["data"]
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
