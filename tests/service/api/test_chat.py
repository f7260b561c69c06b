"""OpenAI's route for conversations."""

from typing import Any

import pytest
from brigantine.engine import Engine
from brigantine.request import request_type
from starlette.testclient import TestClient

from tests.service.api.wire import chunks, pieces
from tests.service.toys import ToyParams

URL = "/v1/chat/completions"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def ask(texts: TestClient, **body: Any) -> dict[str, Any]:
    answer = texts.post(URL, json={"messages": HELLO, "seed": 7, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(texts: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = texts.post(URL, json={"messages": HELLO, "seed": 7, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    return chunks(answer.text)


def refused(texts: TestClient, **body: Any) -> tuple[str, str]:
    answer = texts.post(URL, json={"messages": HELLO, **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_params")
    return error["param"], error["message"]


def test_an_answer_is_openais(texts: TestClient):
    answer = ask(texts, max_tokens=9)

    [choice] = answer["choices"]
    assert (answer["object"], answer["model"]) == ("chat.completion", "prose")
    assert answer["id"].startswith("chatcmpl-")
    assert answer["system_fingerprint"].startswith("fp_")
    assert answer["usage"]["total_tokens"] == 5 + 9
    text = choice["message"].pop("content")
    assert text
    assert choice == {
        "index": 0,
        "seed": 7,
        "message": {"role": "assistant", "refusal": None},
        "logprobs": None,
        "finish_reason": "length",
    }
    native = texts.post(
        "/v1/models/prose/generate",
        json={"messages": HELLO, "seed": 7, "max_tokens": 9},
        headers={"accept": "text/plain"},
    )
    assert native.text == text


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(texts: TestClient):
    several = streamed(texts, n=3, stream_options={"include_usage": True})
    whole = ask(texts, n=3)

    assert several.pop()["usage"] == whole["usage"]
    assert {one["object"] for one in several} == {"chat.completion.chunk"}
    for index, choice in enumerate(whole["choices"]):
        first, *parts, last = pieces(several, index)
        assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert (last["delta"], last["finish_reason"]) == ({}, "length")
        assert all(part["delta"].keys() == {"content"} for part in parts)
        assert "".join(part["delta"]["content"] for part in parts) == choice["message"]["content"]
        assert {part["seed"] for part in (first, *parts, last)} == {choice["seed"]}
        assert {part["finish_reason"] for part in (first, *parts)} == {None}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}],
        [{"role": "user", "content": "hello", "name": "Ann", "tool_calls": None}],
    ],
)
def test_content_may_come_in_parts(texts: TestClient, messages: list[dict[str, Any]]):
    assert ask(texts, messages=messages)["choices"] == ask(texts)["choices"]


def test_roles_reach_the_plugin_by_the_names_that_templates_know(texts: TestClient, prose: Engine):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "user", "content": "x"},
    ]

    echoed = ask(texts, messages=messages, echo=True)["choices"][0]["message"]["content"]

    assert echoed.startswith("system: be brief\nassistant: \nuser: x\n")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "a list of messages, at least one, got None"),
        ([], "a list of messages, at least one, got []"),
        ("hello", "a list of messages, at least one, got 'hello'"),
        ([*HELLO, "x"], "messages with a role and a content, which message 1 has not, got ["),
        ([{"content": "x"}], "messages with a role and a content, which message 0 has not"),
        ([{"role": "user"}], "messages whose content is a string or a list of texts (message 0 has another)"),
        ([{"role": "user", "content": 3}], "messages whose content is a string or a list of texts"),
        ([{"role": "user", "content": ["x"]}], "content of the type 'text' (message 0 has 'None')"),
        ([{"role": "user", "content": [{"type": "file"}]}], "content of the type 'text' (message 0 has 'file')"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages of text alone (message 0 has tool_calls)"),
    ],
)  # fmt: skip
def test_other_messages_are_refused(texts: TestClient, messages: Any, message: str):
    param, said = refused(texts, messages=messages)

    assert param == "messages"
    assert said.startswith(f"messages: expected {message}")


def test_a_body_without_messages_is_refused(texts: TestClient):
    answer = texts.post(URL, json={})

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "messages")


def test_logprobs_are_one_entry_for_each_token(texts: TestClient):
    body: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 20}
    [choice] = ask(texts, **body)["choices"]

    said = choice["logprobs"]["content"]
    assert len(said) == 20
    assert said[0].keys() == {"token", "logprob", "bytes", "top_logprobs"}
    assert [top["logprob"] for top in said[0]["top_logprobs"]] == [0.0, -1.0]
    assert bytes(byte for one in said for byte in one["bytes"]).decode() == choice["message"]["content"]
    parts = pieces(streamed(texts, **body))
    assert [one for part in parts if part["logprobs"] for one in part["logprobs"]["content"]] == said


def test_logprobs_need_no_others_named_but_others_need_logprobs(texts: TestClient):
    assert ask(texts, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert ask(texts, logprobs=False, top_logprobs=0)["choices"][0]["logprobs"] is None
    assert refused(texts, top_logprobs=2)[0] == "logprobs"
    assert refused(texts, logprobs=1)[0] == "logprobs"
    assert refused(texts, logprobs=True, top_logprobs=21)[0] == "top_logprobs"


def test_the_least_probability_is_a_number(texts: TestClient, prose: Engine, monkeypatch: pytest.MonkeyPatch):
    never = {"token": "x", "bytes": [120], "logprob": float("-inf"), "top": []}
    plugin: Any = prose.registry.models["prose"].loaded
    monkeypatch.setattr(plugin, "_logprobs", lambda *_: {"logprobs": [never]})

    assert ask(texts, logprobs=True)["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_completion_tokens": 5}, 5),
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_tokens": 9}, 9),
        ({"max_tokens": None}, 40),
        ({}, 40),
    ],
)
def test_without_a_limit_it_is_what_fits(texts: TestClient, body: dict[str, Any], tokens: int):
    assert ask(texts, **body)["usage"]["completion_tokens"] == tokens


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_limit_is_named_as_it_was_sent(texts: TestClient, name: str, stream: bool):
    param, message = refused(texts, stream=stream, **{name: -1})

    assert (param, message.split(":")[0]) == (name, name)


def test_a_model_that_takes_no_messages_says_so(texts: TestClient, prose: Engine):
    prose.served("prose").request = request_type(ToyParams, "Mute", 8)

    assert refused(texts) == (
        "model",
        "model: expected a model that takes messages, got 'prose', which takes none; ask /v1/completions",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("logit_bias", {"50256": -100}),
    ],
)
def test_what_would_change_the_answer_and_cannot_is_refused(texts: TestClient, field: str, value: Any):
    assert refused(texts, **{field: value})[0] == field
