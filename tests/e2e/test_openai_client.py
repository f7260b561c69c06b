"""What a user of the official client sees."""

import base64
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.e2e.server import Server, serving

ARGUMENTS: dict[str, Any] = {"prompt": "seven", "n": 16, "extra_body": {"seed": 7, "label": 7}}


def pictures(answer: openai.types.ImagesResponse) -> list[bytes]:
    return [base64.b64decode(image.b64_json or "") for image in answer.data or []]


@pytest.mark.parametrize("model", [{}, {"model": "mnist"}, {"model": ""}])
def test_sixteen_sevens_the_same_each_time(client: OpenAI, model: dict[str, Any]):
    first = pictures(client.images.generate(**ARGUMENTS, **model))
    again = pictures(client.images.generate(**ARGUMENTS, **model))

    assert first == again
    assert len(set(first)) == 16
    for picture in first:
        image = Image.open(io.BytesIO(picture))
        assert (image.format, image.size) == ("PNG", (28, 28))


def test_image_3_is_made_again_alone_by_its_reported_seed(client: OpenAI):
    answer = client.images.generate(**ARGUMENTS)
    reported = answer.data[3].seed  # type: ignore[index, attr-defined]

    alone = client.images.generate(prompt="seven", extra_body={"seed": reported, "label": 7})

    assert pictures(alone) == [pictures(answer)[3]]


def test_the_same_bytes_in_another_process_and_after_a_restart(client: OpenAI, tmp_path: Path):
    def drawn(one: OpenAI, seed: int) -> list[bytes]:
        body = {"seed": seed, "label": seed % 10}
        return pictures(one.images.generate(prompt="a digit", n=1 + seed % 17, extra_body=body))

    before = [drawn(client, seed) for seed in range(50)]

    for threads in ("1", "2"):
        with (
            serving(tmp_path, BRIGANTINE_THREADS=threads) as other,
            OpenAI(base_url=f"{other.url}/v1", api_key="none") as anew,
            ThreadPoolExecutor(8) as senders,
        ):
            assert list(senders.map(drawn, [anew] * 50, range(50))) == before


def test_models_are_listed(client: OpenAI):
    assert "mnist" in [model.id for model in client.models.list()]
    assert client.models.retrieve("mnist").owned_by == "plugin brigantine_image"


@pytest.mark.parametrize(
    ("arguments", "error", "param"),
    [
        ({"extra_body": {"label": "eleven"}}, openai.UnprocessableEntityError, "label"),
        ({"n": 0}, openai.UnprocessableEntityError, "n"),
        ({"n": 10_000}, openai.UnprocessableEntityError, "n"),
        ({"extra_body": {"seed": "seven"}}, openai.UnprocessableEntityError, "seed"),
        ({"extra_body": {"sede": 7}}, openai.UnprocessableEntityError, "sede"),
        ({"model": "dall-e-3"}, openai.NotFoundError, "model"),
    ],
)
def test_bad_input_names_the_field(
    client: OpenAI, arguments: dict[str, Any], error: type[openai.APIStatusError], param: str
):
    with pytest.raises(error) as caught:
        client.images.generate(**(dict[str, Any](prompt="seven") | arguments))

    assert caught.value.param == param
    assert "expected" in caught.value.message
    assert "got" in caught.value.message or "expected one of" in caught.value.message
    assert caught.value.request_id


def test_broken_json_and_a_body_of_50_mb_are_refused(server: Server):
    url = f"{server.url}/v1/images/generations"

    broken = httpx.post(url, content=b'{"prompt": "seven",')
    large = httpx.post(url, content=os.urandom(50_000_000), timeout=30)

    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "bad_request")
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")


def test_bad_input_is_no_crash(server: Server):
    """Last in this file: everything above went through the same server."""
    assert server.crashes == []
