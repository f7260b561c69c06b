import pytest
from starlette.testclient import TestClient

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
        ({"output_format": "gif"}, 422, "output_format", "one of png, webp, jpeg, got 'gif'"),
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
