"""The container gives byte for byte what `make serve` gives from the checkout."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.e2e.server import Server


@pytest.fixture(scope="module")
def other(checkout: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{checkout.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def pictures(client: OpenAI, seed: int) -> list[bytes]:
    body = {"seed": seed, "label": seed % 10}
    answer = client.images.generate(prompt="a digit", n=16, extra_body=body)
    return [base64.b64decode(image.b64_json or "") for image in answer.data or []]


def completion(client: OpenAI, seed: int) -> Any:
    answer = client.completions.create(
        model="shakespeare", prompt="ROMEO: ", seed=seed, max_tokens=60, n=2, logprobs=3
    )
    return answer.choices, answer.system_fingerprint


def conversation(client: OpenAI, seed: int) -> Any:
    answer = client.chat.completions.create(
        model="shakespeare",
        messages=[{"role": "user", "content": "What news?"}],
        seed=seed,
        max_completion_tokens=60,
    )
    return answer.choices


@pytest.mark.parametrize("ask", [pictures, completion, conversation])
def test_the_same_seed_gives_the_same(client: OpenAI, other: OpenAI, ask: Any):
    for seed in range(20):
        assert ask(client, seed) == ask(other, seed)
