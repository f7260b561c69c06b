import base64
import io
import time

import pytest
from brigantine.api import Host
from PIL import Image
from starlette.testclient import TestClient

from tests.service.api.wire import events
from tests.service.toys import plugin_of

URL = "/v1/models/tiny/generate"


def test_json_has_one_item_a_row_with_its_seed_and_what_it_is(client: TestClient):
    answer = client.post(URL, json={"n": 3, "seed": 7, "label": "two"}).json()

    assert (answer["object"], answer["model"], answer["content"]) == ("generation", "tiny", "image")
    assert answer["data"][0]["seed"] == 7
    assert len({item["seed"] for item in answer["data"]}) == 3
    for item in answer["data"]:
        assert (item["type"], item["label"], item["size"]) == ("image/png", "two", "8x8")
        assert Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))).size == (8, 8)
    assert set(answer["stages_ms"]) == {"prepare", "queue", "compute", "encode"}


@pytest.mark.usefixtures("on_cpu")
def test_the_time_of_each_stage_is_in_the_header(client: TestClient):
    timing = client.post(URL, json={"n": 3}).headers["server-timing"]

    names = ["queue", "prepare", "compute", "encode", "total", "batch"]
    parts = [part.split(";") for part in timing.split(", ")]
    assert [name for name, _ in parts] == names
    durations = [float(rest.removeprefix("dur=")) for _, rest in parts[:-1]]
    assert 0 < sum(durations[:-1]) <= durations[-1]
    assert parts[-1][1] in ('desc="2 rows in a bucket of 2"', 'desc="3 rows in a bucket of 3"')


def test_a_client_may_wait_less_than_the_setting(
    client: TestClient, host: Host, monkeypatch: pytest.MonkeyPatch
):
    assert host.engine is not None
    plugin = plugin_of(host.engine)
    monkeypatch.setattr(plugin, "generate", lambda batch: time.sleep(0.3) or plugin.session.run(batch))

    answer = client.post(URL, json={}, headers={"x-request-timeout-ms": "50"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "within 0.05 s" in answer.json()["error"]["message"]


@pytest.mark.parametrize("sent", ["0", "-5", "soon", "1.5", "\u00b2", "9" * 400])
def test_a_timeout_that_is_no_number_is_refused(client: TestClient, sent: str):
    answer = client.post(URL, json={}, headers=[(b"x-request-timeout-ms", sent.encode("latin-1"))])

    assert answer.status_code == 400
    assert (
        "X-Request-Timeout-Ms: expected a whole number of milliseconds" in answer.json()["error"]["message"]
    )


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "image/webp",
        "image/jpeg",
        "image/webp;q=0.5, image/png",
        "*/*, image/png",
        "application/json;q=0, image/png;q=0, */*, image/webp",
    ],
)
def test_accept_decides_between_json_and_bytes(client: TestClient, accept: str):
    answer = client.post(URL, json={"seed": 7}, headers={"accept": accept})

    kind = accept.rpartition(" ")[2]
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-seed"] == "7"
    assert f"image/{Image.open(io.BytesIO(answer.content)).format}".lower() == kind


@pytest.mark.parametrize(
    "accept",
    ["*/*", "", "application/json", "text/html, */*;q=0.1", "image/bmp, application/*", "image/*;q=0.5, */*"],
)
def test_json_is_the_answer_to_everything_else_that_allows_it(client: TestClient, accept: str):
    assert client.post(URL, json={}, headers={"accept": accept}).headers["content-type"] == "application/json"


@pytest.mark.parametrize("n", [0, "4", True, 1.5])
def test_a_wrong_n_is_named_whatever_form_was_asked_for(client: TestClient, n: object):
    answer = client.post(URL, json={"n": n}, headers={"accept": "image/png"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "n")


def test_the_bytes_are_those_in_the_json(client: TestClient):
    body = {"seed": 7, "label": 1}

    raw = client.post(URL, json=body, headers={"accept": "image/*"}).content

    assert base64.b64decode(client.post(URL, json=body).json()["data"][0]["b64_json"]) == raw


@pytest.mark.parametrize(
    ("accept", "body", "message"),
    [
        ("audio/wav", {}, "Accept: expected application/json or one of image/png, image/webp, image/jpeg"),
        ("image/png;q=0", {}, "Accept: expected"),
        ("image/png;q=x", {}, "Accept: expected"),
        ("image/png, image/png;q=0", {}, "Accept: expected"),
        ("*/*;q=0", {}, "Accept: expected"),
        ("application/json;q=nan", {}, "Accept: expected"),
        ("image/png", {"n": 4}, "n: expected 1 for an answer in image/png, got 4"),
    ],
)
def test_what_cannot_be_answered_in_that_form_is_406(
    client: TestClient, accept: str, body: dict[str, object], message: str
):
    answer = client.post(URL, json=body, headers={"accept": accept})

    assert answer.status_code == 406
    assert message in answer.json()["error"]["message"]


@pytest.mark.usefixtures("on_cpu")
def test_models_are_listed_and_shown(client: TestClient):
    [listed] = client.get("/v1/models").json()["data"]
    shown = client.get("/v1/models/tiny").json()

    assert (listed["id"], listed["object"], listed["content"], listed["device"]) == (
        "tiny",
        "model",
        "image",
        "cpu",
    )
    assert shown["digest"] == listed["digest"]
    assert "in any batch, at any position, in any process" in shown["seeds"]["guarantee"]
    assert (shown["seeds"]["batched"], shown["seeds"]["tried_batch"]) == (True, 32)
    assert [label["name"] for label in shown["labels"]] == ["zero", "one", "two"]
    assert shown["inputs"][0] == {"name": "z", "dtype": "float32", "shape": ["batch", 4]}


@pytest.mark.parametrize("accept", ["text/event-stream", "text/event-stream, application/json;q=0.5"])
def test_text_comes_in_parts(texts: TestClient, accept: str):
    url, body = (
        "/v1/models/prose/generate",
        {"n": 2, "seed": 7, "prompt": "x", "logprobs": 1, "max_tokens": 30},
    )

    answer = texts.post(url, json=body, headers={"accept": accept})

    whole = texts.post(url, json=body).json()["data"]
    told = events(answer.text)
    assert answer.headers["content-type"] == "text/event-stream"
    for index, item in enumerate(whole):
        mine = [(name, data) for name, data in told if data["index"] == index]
        assert [name for name, _ in mine] == ["part"] * (len(mine) - 1) + ["done"]
        parts = [data for _, data in mine[:-1]]
        assert "".join(part["text"] for part in parts).encode() == base64.b64decode(item.pop("b64_json"))
        assert all(part.keys() == {"index", "text", "logprobs"} for part in parts[:-1])
        assert mine[-1][1] == {"index": index, **item}


def test_what_is_made_at_once_comes_row_by_row(client: TestClient):
    body = {"seed": 7, "n": 3}
    answer = client.post(URL, json=body, headers={"accept": "text/event-stream"})

    whole = client.post(URL, json=body).json()["data"]
    told = events(answer.text)
    assert [name for name, _ in told] == ["part", "done"] * 3
    parts = {data["index"]: data["b64_json"] for name, data in told if name == "part"}
    for name, data in told:
        if name == "done":
            index = data.pop("index")
            assert {**data, "b64_json": parts[index]} == whole[index]


def test_a_drawn_seed_is_reported_in_a_stream(texts: TestClient):
    url = "/v1/models/prose/generate"
    first = events(texts.post(url, json={"seed": None}, headers={"accept": "text/event-stream"}).text)
    again = texts.post(url, json={"seed": first[-1][1]["seed"]}, headers={"accept": "text/plain"})

    assert again.text == "".join(data["text"] for name, data in first if name == "part")


def test_an_error_in_a_stream_is_its_last_event(texts: TestClient):
    url, accept = "/v1/models/prose/generate", {"accept": "text/event-stream"}
    late = texts.post(url, json={"prompt": "boom", "seed": 2}, headers=accept)
    early = texts.post(url, json={"prompt": "refuse"}, headers=accept)

    assert events(late.text)[-1][0] == "error"
    assert events(late.text)[-1][1]["error"]["code"] == "generation_failed"
    assert (early.status_code, early.json()["error"]["param"]) == (422, "prompt")
    for n in ("2", None, 0):
        assert texts.post(url, json={"n": n}, headers=accept).json()["error"]["param"] == "n"
    assert texts.post(url, json={"seed": "7"}, headers=accept).json()["error"]["param"] == "seed"


def test_a_stream_must_be_named(texts: TestClient):
    url = "/v1/models/prose/generate"

    assert (
        texts.post(url, json={}, headers={"accept": "text/*"})
        .headers["content-type"]
        .startswith("text/plain")
    )
    assert texts.post("/v1/texts/generations", json={"stream": True}).json()["error"]["param"] == "stream"
