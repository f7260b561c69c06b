import base64
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from brigantine.api import Entry, Host
from brigantine.engine import Engine
from brigantine.settings import Settings
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.tiny import tiny_model

URL = "/v1/images/generations"


@pytest.mark.parametrize("model", [{"model": "tiny"}, {"model": ""}, {"model": None}, {}])
def test_the_model_may_be_named_or_left_out(client: TestClient, model: dict[str, object]):
    answer = client.post(URL, json={"prompt": "two", "n": 2, "seed": 7, **model}).json()

    assert answer["model"] == "tiny"
    assert (answer["size"], answer["output_format"]) == ("8x8", "png")
    assert [item["revised_prompt"] for item in answer["data"]] == ["two", "two"]


def test_the_native_route_gives_the_same_bytes(client: TestClient):
    ours = client.post("/v1/models/tiny/generate", json={"seed": 7, "n": 3, "label": 1}).json()
    theirs = client.post(URL, json={"prompt": "", "seed": 7, "n": 3, "label": 1}).json()

    assert [item["b64_json"] for item in ours["data"]] == [item["b64_json"] for item in theirs["data"]]
    assert [item["seed"] for item in ours["data"]] == [item["seed"] for item in theirs["data"]]


def test_standard_fields_without_meaning_here_are_taken(client: TestClient):
    body = {"prompt": "two", "size": "1024x1024", "quality": "high", "style": "vivid", "user": "u", "n": None}

    answer = client.post(URL, json=body)

    assert (answer.status_code, answer.json()["size"]) == (200, "8x8")


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"label": "nine"}, 422, "label", "one of zero, one, two, got 'nine'"),
        ({"n": 0}, 422, "n", "greater than or equal to 1, got 0"),
        ({"n": 10_000}, 422, "n", "less than or equal to 128, got 10000"),
        ({"seed": "seven"}, 422, "seed", "a valid integer, got 'seven'"),
        ({"sede": 7}, 422, "sede", "did you mean seed?"),
        ({"modle": "tiny"}, 422, "modle", "did you mean model?"),
        ({"foo": None}, 422, "foo", "one of the known fields"),
        ({"model": "dall-e-3"}, 404, "model", "model 'dall-e-3': expected one of tiny"),
        ({"model": 3}, 422, "model", "a valid string, got 3"),
        ({"output_format": "bmp"}, 422, "output_format", "one of png, webp, jpeg, gif, got 'bmp'"),
        ({"response_format": "url"}, 422, "response_format", "'b64_json', got 'url'"),
        ({"stream": True}, 422, "stream", "got True"),
        ({"prompt": 3}, 422, "prompt", "a valid string, got 3"),
    ],
)
def test_a_bad_field_is_named(
    client: TestClient, body: dict[str, object], status: int, param: str, message: str
):
    answer = client.post(URL, json=body)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert message in error["message"]


def test_what_came_is_shortened_in_the_answer(client: TestClient):
    for field in ("label", "model", "output_format", "prompt", "nonsense" * 99):
        answer = client.post(URL, json={field: "x" * 100_000})

        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 2_000


def test_bad_fields_are_counted(client: TestClient):
    client.post(URL, json={"n": 0})

    counted = 'brigantine_requests_total{content="image",model="tiny",status="422"} 1.0'
    assert counted in client.get("/metrics").text


@pytest.mark.parametrize("body", [b"", b'{"n":', b"[1]", b"\xff\xfe", b'"x"', b"null", b'{"n": NaN}'])
def test_a_body_that_is_no_object_is_400(client: TestClient, body: bytes):
    answer = client.post(URL, content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert "body: expected" in answer.json()["error"]["message"]


BLOT = """
    from brigantine import Media, Params, Plugin
    from pydantic import Field

    class BlotParams(Params):
        label: int = Field(0, ge=0, le=2, description="Which.")
        size: float = Field(1.0, ge=0, le=9, description="How large; OpenAI has a field of this name.")

    class Blot(Plugin[BlotParams]):
        name = "blot"
        content = "blot"
        plural = "blotches"
        types = ("text/plain", "image/x-blot")
        params = BlotParams

        def prepare(self, params, rng):
            return {"z": rng.standard_normal(4).astype("float32"), "label": params.label}

        def render(self, row, params, media_type):
            if params.size == 9:
                raise ValueError("too large")
            return Media(media_type, f"{params.size} {row['image'].sum()}".encode(), {"wet": True})
"""


@pytest.fixture
def blots(tmp_path: Path) -> Iterator[TestClient]:
    """A service with a third party's content beside images."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "blot.py").write_text(textwrap.dedent(BLOT))
    tiny_model(folder / "models", "blots", plugin="blot")
    engine = Engine.start(Settings(plugins_dir=folder, threads=1, breaker_failures=3))
    with TestClient(Entry(Starlette(), Host(engine)), raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client
    engine.close()


def test_any_content_has_the_same_route_under_its_plural(blots: TestClient):
    answer = blots.post(
        "/v1/blotches/generations", json={"size": 2.5, "n": 2, "seed": 7, "prompt": "x"}
    ).json()

    assert (answer["model"], answer["output_format"]) == ("blots", "plain")
    assert [base64.b64decode(item["b64_json"])[:4] for item in answer["data"]] == [b"2.5 ", b"2.5 "]
    assert [item["wet"] for item in answer["data"]] == [True, True]
    other = blots.post("/v1/blotches/generations", json={"output_format": "x-blot", "seed": 7}).json()
    assert other["output_format"] == "x-blot"
    again = blots.post("/v1/models/blots/generate", json={"seed": 7}, headers={"accept": "image/x-blot"})
    assert again.content == base64.b64decode(other["data"][0]["b64_json"])


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/html, */*;q=0.8"])
def test_json_comes_unless_a_type_is_named(blots: TestClient, accept: str):
    answer = blots.post("/v1/blotches/generations", json={"seed": 7}, headers={"accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("text/plain", "text/plain"), ("image/x-blot, */*;q=0.1", "image/x-blot"), ("image/*", "image/x-blot")],
)
def test_a_type_that_accept_names_comes_as_its_bytes(blots: TestClient, accept: str, kind: str):
    answer = blots.post("/v1/blotches/generations", json={"seed": 7}, headers={"accept": accept})
    native = blots.post("/v1/models/blots/generate", json={"seed": 7}, headers={"accept": kind})

    assert answer.headers["content-type"].partition(";")[0] == kind
    assert (answer.content, answer.headers["x-seed"], answer.headers["x-model"]) == (
        native.content,
        "7",
        "blots",
    )


@pytest.mark.parametrize(
    ("accept", "body", "message"),
    [
        ("audio/wav", {}, "Accept: expected application/json or one of text/plain, image/x-blot, got 'audio/wav'"),
        ("image/x-blot", {"output_format": "plain"}, "or one of text/plain, got 'image/x-blot'"),
        ("text/plain", {"n": 2}, "n: expected 1 for an answer in text/plain, got 2"),
    ],
)  # fmt: skip
def test_what_accept_does_not_allow_is_406(
    blots: TestClient, accept: str, body: dict[str, object], message: str
):
    answer = blots.post("/v1/blotches/generations", json=body, headers={"accept": accept})

    assert (answer.status_code, answer.json()["error"]["code"]) == (406, "not_acceptable")
    assert message in answer.json()["error"]["message"]


def test_fields_of_openais_pictures_mean_nothing_for_other_content(blots: TestClient):
    refused = blots.post("/v1/blotches/generations", json={"quality": "high", "prompt": "x", "user": "u"})

    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "quality")


def test_a_plugins_own_fields_are_checked_under_its_route(blots: TestClient):
    wrong = blots.post("/v1/blotches/generations", json={"size": 10, "lable": 1})

    assert wrong.status_code == 422
    assert [one["field"] for one in wrong.json()["error"]["errors"]] == ["size", "lable"]
    assert blots.post("/v1/images/generations", json={"size": "1024x1024"}).status_code == 200


def test_another_contents_model_is_refused_and_an_unknown_plural_is_404(blots: TestClient):
    wrong = blots.post("/v1/blotches/generations", json={"model": "mnist"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "model")

    unknown = blots.post("/v1/smells/generations", json={})
    assert unknown.status_code == 404
    assert "/v1/blotches/generations, /v1/images/generations" in unknown.json()["error"]["message"]


def test_the_contract_has_every_contents_route(blots: TestClient):
    document = blots.get("/openapi.json").json()

    body = document["paths"]["/v1/blotches/generations"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert fields["size"]["maximum"] == 9
    assert {"model", "n", "seed", "label", "prompt"} <= fields.keys()
    assert not {"quality", "style", "background", "moderation"} & fields.keys()
    images = document["paths"]["/v1/images/generations"]["post"]
    assert {"quality", "size"} <= images["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ].keys()
    made = document["paths"]["/v1/blotches/generations"]["post"]["responses"]["200"]["content"]
    assert list(made) == ["application/json", "text/plain", "image/x-blot"]
    shown = blots.get("/v1/plugins/blot").json()
    assert (shown["route"], shown["isolation"]) == ("/v1/blotches/generations", "thread")


def test_a_model_that_fails_again_and_again_rests_and_the_others_serve(blots: TestClient):
    broken = [blots.post("/v1/blotches/generations", json={"size": 9}) for _ in range(4)]

    assert [answer.status_code for answer in broken] == [500, 500, 500, 503]
    assert broken[3].json()["error"]["code"] == "model_failing"
    assert int(broken[3].headers["retry-after"]) == 1
    assert 'brigantine_model_resting{model="blots"} 1.0' in blots.get("/metrics").text
    assert blots.post("/v1/images/generations", json={}).status_code == 200
