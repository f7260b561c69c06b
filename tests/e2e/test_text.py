"""Text as users of the official client see it, and those of another one."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import psutil
import pytest
from langchain_openai import ChatOpenAI
from langchain_openai import OpenAI as LangChainOpenAI
from openai import AsyncOpenAI, OpenAI

from tests.e2e.server import Server, serving, until
from tests.typist import typist_model

HELLO: list[Any] = [{"role": "user", "content": "ROMEO: "}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("text")
    with serving(home, BRIGANTINE_PLUGINS_DIR=str(typist_model(home / "plugins"))) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(params=["prose", "shakespeare"])
def model(request: pytest.FixtureRequest) -> str:
    return request.param


def complete(client: OpenAI, model: str, **more: Any) -> list[str]:
    answer = client.completions.create(model=model, prompt="ROMEO: ", **more)
    return [choice.text for choice in answer.choices]


def test_a_completion_is_the_same_each_time(client: OpenAI, model: str):
    first = client.completions.create(model=model, prompt="ROMEO: ", seed=7, max_tokens=20)
    again = client.completions.create(model=model, prompt="ROMEO: ", seed=7, max_tokens=20)

    assert (first.choices, first.usage) == (again.choices, again.usage)
    assert first.model == model
    assert first.choices[0].finish_reason == "length"
    assert first.usage is not None and first.usage.completion_tokens == 20
    assert first.usage.prompt_tokens > 0
    assert first.system_fingerprint == again.system_fingerprint
    assert complete(client, model, seed=8, max_tokens=20) != [first.choices[0].text]


def test_three_of_one_seed_and_each_alone(client: OpenAI, model: str):
    answer = client.completions.create(model=model, prompt="ROMEO: ", n=3, seed=7, max_tokens=20)

    assert len({choice.text for choice in answer.choices}) == 3
    for choice in answer.choices:
        assert complete(client, model, seed=choice.seed, max_tokens=20) == [choice.text]  # type: ignore[attr-defined]


def test_a_stream_says_the_same(client: OpenAI, model: str):
    more: dict[str, Any] = {"seed": 7, "max_tokens": 40, "n": 3}
    stream = client.completions.create(
        model=model, prompt="ROMEO: ", stream=True, stream_options={"include_usage": True}, **more
    )
    texts, reasons, usages = ["", "", ""], {}, []
    for chunk in stream:
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:  # type: ignore[truthy-bool]
                reasons[choice.index] = choice.finish_reason

    whole = client.completions.create(model=model, prompt="ROMEO: ", **more)
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    *none, usage = usages
    assert usage is not None and set(none) == {None}
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )  # type: ignore[union-attr]


def test_a_stop_string_ends_both(client: OpenAI, model: str):
    [long] = complete(client, model, seed=7, max_tokens=40)
    stop = long[10:13]

    answer = client.completions.create(model=model, prompt="ROMEO: ", seed=7, max_tokens=40, stop=[stop])
    stream = client.completions.create(
        model=model, prompt="ROMEO: ", seed=7, max_tokens=40, stop=stop, stream=True
    )

    assert answer.choices[0].text == long.partition(stop)[0]
    assert answer.choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_the_logprobs_of_a_completion(client: OpenAI, model: str):
    answer = client.completions.create(model=model, prompt="ROMEO: ", seed=7, max_tokens=12, logprobs=3)

    said = answer.choices[0].logprobs
    assert said and said.tokens and said.token_logprobs and said.top_logprobs and said.text_offset
    assert len(said.tokens) == len(said.token_logprobs) == len(said.top_logprobs) == 12
    assert all(-1000 < one <= 0 for one in said.token_logprobs)
    assert all(len(top) >= 3 for top in said.top_logprobs)
    assert said.text_offset == sorted(said.text_offset)


def test_a_conversation(client: OpenAI, model: str):
    more: dict[str, Any] = {"model": model, "messages": HELLO, "seed": 7, "max_completion_tokens": 20, "n": 2}
    answer = client.chat.completions.create(**more, logprobs=True, top_logprobs=2)
    stream = client.chat.completions.create(**more, stream=True)
    texts, roles = ["", ""], {}
    for chunk in stream:
        for choice in chunk.choices:
            roles.setdefault(choice.index, choice.delta.role)
            texts[choice.index] += choice.delta.content or ""

    assert texts == [choice.message.content for choice in answer.choices]
    assert roles == {0: "assistant", 1: "assistant"}
    assert answer.usage is not None and answer.usage.completion_tokens == 40
    said = answer.choices[0].logprobs
    assert said and said.content and len(said.content) == 20
    assert [len(token.top_logprobs) for token in said.content] == [2] * 20


def test_the_clients_own_helper_for_streams(client: OpenAI, model: str):
    more: dict[str, Any] = {"model": model, "messages": HELLO, "seed": 7, "max_completion_tokens": 40}
    long = client.chat.completions.create(**more).choices[0].message.content or ""
    stop = long[10:13]  # it takes a message for broken that ends for its length

    with client.chat.completions.stream(**more, stop=stop) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == long.partition(stop)[0]


def test_many_at_once_are_each_what_they_are_alone(server: Server, client: OpenAI, model: str):
    async def one(several: AsyncOpenAI, seed: int) -> str:
        stream = await several.completions.create(
            model=model, prompt="ROMEO: ", seed=seed, max_tokens=5 + seed, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as several:
            return await asyncio.gather(*(one(several, seed) for seed in range(24)))

    together = asyncio.run(all_of_them())
    assert together == [complete(client, model, seed=seed, max_tokens=5 + seed)[0] for seed in range(24)]


@pytest.mark.parametrize(
    ("arguments", "error", "param"),
    [
        ({"temperature": 3}, openai.UnprocessableEntityError, "temperature"),
        ({"max_tokens": -1}, openai.UnprocessableEntityError, "max_tokens"),
        ({"n": 0}, openai.UnprocessableEntityError, "n"),
        ({"logit_bias": {"5": 1}}, openai.UnprocessableEntityError, "logit_bias"),
        ({"stop": ["a"] * 5}, openai.UnprocessableEntityError, "stop"),
        ({"model": "gpt-7"}, openai.NotFoundError, "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_input_names_the_field(
    client: OpenAI,
    model: str,
    arguments: dict[str, Any],
    error: type[openai.APIStatusError],
    param: str,
    stream: bool,
):
    with pytest.raises(error) as caught:
        client.completions.create(**(dict[str, Any](model=model, prompt="x", stream=stream) | arguments))

    assert caught.value.param == param
    assert "expected" in caught.value.message
    assert caught.value.request_id


def test_an_error_in_the_middle_of_a_stream_is_raised(client: OpenAI):
    stream = client.completions.create(model="prose", prompt="boom", seed=2, stream=True)

    with pytest.raises(openai.APIError, match="the ribbon is torn") as caught:
        list(stream)
    assert caught.value.code == "generation_failed"


def test_langchain_talks_to_it(server: Server, model: str):
    with openai.DefaultHttpxClient() as http_client:  # its own is never closed
        common: dict[str, Any] = {
            "base_url": f"{server.url}/v1",
            "api_key": "none",
            "model": model,
            "max_retries": 0,
            "http_client": http_client,
        }
        chat = ChatOpenAI(**common, seed=7, max_completion_tokens=20)
        older = LangChainOpenAI(**common, seed=7, max_tokens=20)

        said = chat.invoke("ROMEO: ")
        parts = list(chat.stream("ROMEO: "))
        completed, streamed = older.invoke("ROMEO: "), "".join(older.stream("ROMEO: "))

    assert said.content
    assert said.usage_metadata is not None and said.usage_metadata["output_tokens"] == 20
    assert "".join(str(part.content) for part in parts) == said.content
    assert len(parts) > 2
    assert streamed == completed


def in_flight(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(map(float, re.findall(r'^brigantine_in_flight\{model="prose"\} (\S+)', text, re.M)))


def hung_up(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(
        r'^brigantine_requests_total\{content="text",model="prose",status="499"\} (\S+)', text, re.M
    )
    return float(found[1]) if found else 0.0


LONG = {"prompt": "x", "stream": True, "max_tokens": 500, "pace_s": 0.01}


def test_two_hundred_who_hang_up_leave_memory_flat(server: Server):
    def hang_up(seed: int) -> None:
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json={**LONG, "model": "prose", "seed": seed}
        ) as one:
            lines = one.iter_lines()
            for _ in range(1 + seed % 5):
                next(lines)

    def used() -> int:
        assert until(lambda: in_flight(server) == 0)
        parent = psutil.Process(server.process.pid)
        return sum(process.memory_info().rss for process in parent.children(recursive=True))

    with ThreadPoolExecutor(10) as clients:
        list(clients.map(hang_up, range(100)))
        before = used()
        list(clients.map(hang_up, range(200)))
    assert used() - before < 8_000_000


def drain(one: socket.socket) -> bytes:
    data = b""
    while chunk := one.recv(65536):
        data = chunk
    return data


def test_who_does_not_read_has_hung_up(server: Server):
    url = httpx.URL(server.url)
    # More than the kernel takes for it.
    body = json.dumps({**LONG, "model": "prose", "n": 100, "logprobs": 5, "pace_s": 0.02}).encode()
    already = hung_up(server)
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((url.host, url.port))
        silent.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert until(lambda: in_flight(server) == 1)
        assert until(lambda: in_flight(server) == 0)
        assert hung_up(server) == already + 1
        assert not drain(silent).endswith(b"0\r\n\r\n")


def test_nothing_of_this_is_a_crash(server: Server):
    """Last in this file: everything above went through the same server, and one error was asked for."""
    [asked_for] = [line for line in server.crashes if "Traceback" not in line]
    assert "ERROR brigantine.api POST /v1/completions req_" in asked_for
    assert "the ribbon is torn" in server.log
