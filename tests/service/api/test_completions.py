"""OpenAI's older route for text: prompts in, numbered choices out."""

from typing import Any

import pytest
from brigantine.api.fields import REFUSED, WITHOUT_EFFECT
from starlette.testclient import TestClient

from tests.service.api.wire import chunks, pieces

URL = "/v1/completions"


def ask(texts: TestClient, **body: Any) -> dict[str, Any]:
    answer = texts.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(texts: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = texts.post(URL, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    return chunks(answer.text)


def choices_of(texts: TestClient, **body: Any) -> list[tuple[str, int]]:
    return [(choice["text"], choice["seed"]) for choice in ask(texts, **body)["choices"]]


def refused(texts: TestClient, **body: Any) -> tuple[str, str]:
    """The field that is said to be wrong, and why."""
    answer = texts.post(URL, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "invalid_params")
    return error["param"], error["message"]


@pytest.mark.parametrize("model", [{"model": "prose"}, {"model": ""}, {"model": None}, {}])
def test_an_answer_is_openais(texts: TestClient, model: dict[str, Any]):
    answer = ask(texts, prompt="hello", seed=7, **model)
    shown = texts.get("/v1/models/prose").json()

    [choice] = answer.pop("choices")
    assert choice.keys() == {"index", "text", "logprobs", "finish_reason", "seed"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"], choice["seed"]) == (
        0,
        None,
        "length",
        7,
    )
    assert answer.pop("id").startswith("cmpl-")
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "text_completion",
        "model": "prose",
        "system_fingerprint": f"fp_{shown['digest'][:12]}",
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 16,
            "total_tokens": 21,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }  # fmt: skip


def test_the_native_route_and_a_stream_give_the_same_text(texts: TestClient):
    body: dict[str, Any] = {"prompt": "hello", "seed": 7, "max_tokens": 60}
    [(text, _)] = choices_of(texts, **body)

    native = texts.post("/v1/models/prose/generate", json=body, headers={"accept": "text/plain"}).text
    several = streamed(texts, **body)

    assert "🙂" in text
    assert native == text
    assert "".join(choice["text"] for choice in pieces(several)) == text
    assert not any("\ufffd" in choice["text"] for choice in pieces(several))
    assert [choice["finish_reason"] for choice in pieces(several)] == [None] * (len(several) - 1) + ["length"]


def test_chunks_have_one_id_and_one_shape(texts: TestClient):
    several = streamed(texts, prompt="hello", n=3, seed=7)

    assert len({(one["id"], one["created"], one["system_fingerprint"]) for one in several}) == 1
    for one in several:
        assert (one["object"], one["model"], "usage" in one) == ("text_completion", "prose", False)
        [choice] = one["choices"]
        assert choice.keys() == {"index", "text", "logprobs", "finish_reason", "seed"}


def test_every_choice_is_made_again_alone_by_its_seed(texts: TestClient):
    several = choices_of(texts, prompt="hello", n=4, seed=7)

    assert len(set(several)) == 4
    assert several[0][1] == 7
    for text, seed in several:
        assert choices_of(texts, prompt="hello", seed=seed) == [(text, seed)]
    parts = streamed(texts, prompt="hello", n=4, seed=7)
    assert [
        ("".join(piece["text"] for piece in pieces(parts, index)), pieces(parts, index)[0]["seed"])
        for index in range(4)
    ] == several


def test_a_drawn_seed_is_reported(texts: TestClient):
    [first], [other] = choices_of(texts, prompt="x"), choices_of(texts, prompt="x")

    assert first[1] != other[1]
    assert choices_of(texts, prompt="x", seed=first[1]) == [first]


def test_several_prompts_are_several_generations_of_one_seed(texts: TestClient):
    body: dict[str, Any] = {"prompt": ["a", "bb", "a"], "n": 2, "seed": 7}
    answer = ask(texts, **body)

    made = [(choice["text"], choice["seed"]) for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    assert len(set(made)) == 6
    assert made[:2] == choices_of(texts, prompt="a", n=2, seed=7)
    assert made[2:4] == choices_of(texts, prompt="bb", n=2, seed=made[2][1])
    assert choices_of(texts, **body) == made
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 6 * 16
    parts = streamed(texts, **body)
    assert ["".join(p["text"] for p in pieces(parts, index)) for index in range(6)] == [
        text for text, _ in made
    ]


@pytest.mark.parametrize(
    ("prompt", "same"), [([0, 1, 5], "ha é"), (["ha é"], "ha é"), ([[0, 1, 5]], "ha é"), (None, ""), ("", "")]
)
def test_a_prompt_may_be_a_string_or_token_ids_or_a_list_of_either(texts: TestClient, prompt: Any, same: str):
    echoed = [choice["text"] for choice in ask(texts, prompt=prompt, echo=True, seed=7)["choices"]]

    assert echoed == [choice["text"] for choice in ask(texts, prompt=same, echo=True, seed=7)["choices"]]
    assert echoed[0].startswith(same)


@pytest.mark.parametrize(
    "prompt", [[], 3, [1, "a"], ["a", 1], [[]], [["a"]], [True], {"text": "a"}, [None], [1.5]]
)
def test_another_prompt_is_refused(texts: TestClient, prompt: Any):
    param, message = refused(texts, prompt=prompt)

    assert param == "prompt"
    assert "a string, token ids, or a list of strings or of lists of token ids, got " in message


@pytest.mark.parametrize("beside", [{}, {"prompt": "x"}, {"stream": True}])
def test_messages_have_a_route_of_their_own(texts: TestClient, beside: dict[str, Any]):
    param, message = refused(texts, messages=[{"role": "user", "content": "x"}], **beside)

    assert param == "messages"
    assert "/v1/chat/completions" in message


def test_the_texts_of_one_request_are_bounded(texts: TestClient):
    assert len(ask(texts, prompt=["a"] * 4, n=2)["choices"]) == 8
    param, message = refused(texts, prompt=["a"] * 5, n=2)
    assert (param, message) == (
        "prompt",
        "prompt: expected at most 8 texts in all (BRIGANTINE_MAX_N), got 5 prompts, and n = 2",
    )
    assert refused(texts, prompt="a", n=9)[0] == "n"


def test_a_stop_string_ends_it_and_is_not_shown(texts: TestClient):
    body: dict[str, Any] = {"prompt": "x", "seed": 7, "max_tokens": 100}
    [(long, _)] = choices_of(texts, **body)

    for stop, first in (("hum", "hum"), (["hum", "🙂, "], "🙂, ")):
        [choice] = ask(texts, **body, stop=stop)["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["text"] == long.partition(first)[0]
        parts = pieces(streamed(texts, **body, stop=stop))
        assert "".join(piece["text"] for piece in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == "stop"


def test_the_usage_of_a_stream_is_its_last_chunk(texts: TestClient):
    body: dict[str, Any] = {"prompt": ["hello", "you"], "n": 2, "seed": 7}
    several = streamed(texts, **body, stream_options={"include_usage": True, "include_obfuscation": False})

    assert several[-1]["choices"] == []
    assert several[-1]["usage"] == ask(texts, **body)["usage"]
    assert [one["usage"] for one in several[:-1]] == [None] * (len(several) - 1)
    assert all("usage" not in one for one in streamed(texts, **body, stream_options={"include_usage": False}))


def test_logprobs_are_lists_beside_each_other(texts: TestClient):
    [choice] = ask(texts, prompt="aé", echo=True, logprobs=2, seed=7, max_tokens=12)["choices"]

    said = choice["logprobs"]
    assert said["tokens"][:3] == ["a", "\ufffd", "\ufffd"]
    assert said["token_logprobs"] == [None, -0.5, -0.5] + [-1.5] * 12
    assert said["top_logprobs"][3] == {"t0": 0.0, "t1": -1.0, said["tokens"][3]: -1.5}
    assert said["text_offset"][:4] == [0, 1, 1, 2]
    whole = [
        (token, offset)
        for token, offset in zip(said["tokens"], said["text_offset"], strict=True)
        if "\ufffd" not in token
    ]
    assert whole
    for token, offset in whole:
        assert choice["text"][offset : offset + len(token)] == token


@pytest.mark.parametrize("echo", [False, True])
def test_the_logprobs_of_a_stream_are_those_of_the_whole(texts: TestClient, echo: bool):
    body: dict[str, Any] = {
        "prompt": "aé",
        "echo": echo,
        "logprobs": 1,
        "seed": 11,
        "max_tokens": 60,
        "stop": "humha",
    }
    [choice] = ask(texts, **body)["choices"]

    parts = [piece["logprobs"] for piece in pieces(streamed(texts, **body)) if piece["logprobs"]]

    assert len(parts) > 10
    for name, values in choice["logprobs"].items():
        assert [one for part in parts for one in part[name]] == values


def test_fields_without_effect_are_taken(texts: TestClient):
    plain = choices_of(texts, prompt="x", seed=7)

    assert choices_of(texts, prompt="x", seed=7, **dict.fromkeys(WITHOUT_EFFECT, "any")) == plain
    assert choices_of(texts, prompt="x", seed=7, **dict.fromkeys(REFUSED)) == plain
    nothing = {name: values[0] for name, values in REFUSED.items() if values}
    assert choices_of(texts, prompt="x", seed=7, best_of=1, **nothing) == plain
    assert choices_of(texts, prompt="x", seed=7, n=2, best_of=2)[:1] == plain
    usual = {
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "max_tokens": None,
        "logprobs": None,
    }
    assert choices_of(texts, prompt="x", seed=7, **usual) == plain


@pytest.mark.parametrize("field", [*REFUSED, "top_p", "presence_penalty", "frequency_penalty"])
def test_what_would_change_the_answer_and_cannot_is_refused(texts: TestClient, field: str):
    param, message = refused(texts, prompt="x", **{field: 0.5})

    assert param == field
    assert message.startswith(f"{field}: expected null")
    assert message.endswith("(model 'prose' can do no other), got 0.5")


def test_all_that_would_change_the_answer_is_named_at_once(texts: TestClient):
    assert refused(texts, n=2, best_of=3)[1].startswith("best_of: expected null or at most n (model")
    assert "logit_bias: " in refused(texts, tools=[{}], logit_bias={"5": 1})[1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options"),
        ({"model": 3}, "model"),
        ({"temperature": 9}, "temperature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"temprature": 1}, "temprature"),
        ({"temprature": None}, "temprature"),
    ],
)
def test_a_bad_field_is_named(texts: TestClient, body: dict[str, Any], param: str):
    assert refused(texts, **body)[0] == param
    assert refused(texts, **body, **({} if "stream" in body else {"stream": True}))[0] == param


def test_where_no_model_makes_text_it_is_404(client: TestClient):
    answer = client.post(URL, json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["message"].startswith("no model that makes text is served")

    other = client.post(URL, json={"prompt": "x", "model": "tiny"})
    assert (other.status_code, other.json()["error"]["param"]) == (422, "model")
    assert "a model that makes text, got 'tiny', which makes image" in other.json()["error"]["message"]
