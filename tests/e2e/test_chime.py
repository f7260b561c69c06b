"""A third party's plugin: the example is installed as its users would, and the real server serves it."""

import base64
import io
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.server import Server, serving
from tests.projects import CHIME, install

ROUTE = "/v1/chimes/generations"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(CHIME, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def chimes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("chimes"), PYTHONPATH=str(site)) as server:
        yield server


def ask(server: Server, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}{ROUTE}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def samples(body: bytes) -> NDArray[np.int16]:
    with wave.open(io.BytesIO(body)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_its_own_tests_pass_where_it_is_installed(site: Path, tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHIME)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_wav_of_the_pitch_comes_back(chimes: Server):
    made = ask(chimes, pitch=660, seed=7)

    [one] = made["data"]
    audio = samples(base64.b64decode(one["b64_json"]))
    assert (made["model"], made["output_format"], one["seed"], one["pitch"]) == ("chime", "wav", 7, 660)
    assert len(audio) == 16_000
    assert np.abs(np.fft.rfft(audio)).argmax() == pytest.approx(660, abs=1)


def test_the_same_seed_gives_the_same_bytes_alone_and_in_company(chimes: Server):
    four = ask(chimes, pitch=660, n=4, seed=7)["data"]

    assert ask(chimes, pitch=660, n=4, seed=7)["data"] == four
    assert ask(chimes, pitch=660, seed=four[3]["seed"])["data"] == [four[3]]
    assert ask(chimes, pitch=660, seed=8)["data"][0]["b64_json"] != four[0]["b64_json"]


def test_accept_chooses_the_bytes(chimes: Server):
    answer = httpx.post(
        f"{chimes.url}/v1/models/chime/generate", json={"seed": 7}, headers={"Accept": "audio/wav"}
    )

    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("audio/wav", "7")
    assert len(samples(answer.content)) == 16_000


@pytest.mark.parametrize("path", [ROUTE, "/v1/models/chime/generate"])
def test_a_bad_field_is_named(chimes: Server, path: str):
    answer = httpx.post(f"{chimes.url}{path}", json={"pitch": 20, "loudness": 3})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_params", "pitch")
    assert [one["field"] for one in error["errors"]] == ["pitch", "loudness"]
    assert "pitch: expected greater than or equal to 110, got 20" in error["message"]


@pytest.mark.parametrize("path", [ROUTE, "/v1/models/chime/generate"])
def test_its_params_are_in_openapi(chimes: Server, path: str):
    document = httpx.get(f"{chimes.url}/openapi.json").json()

    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    pitch = body["properties"]["pitch"]
    assert (pitch["minimum"], pitch["maximum"], pitch["default"]) == (110, 1760, 440)
    assert {"n", "seed", "decay"} <= set(body["properties"])


def test_it_is_listed_with_its_distribution(chimes: Server):
    plugin = httpx.get(f"{chimes.url}/v1/plugins/chime").json()

    assert plugin == {
        "id": "chime",
        "object": "plugin",
        "state": "serving",
        "reason": None,
        "distribution": "brigantine-chime",
        "version": "0.1.0",
        "content": "chime",
        "route": ROUTE,
        "types": ["audio/wav"],
        "isolation": "thread",
        "params": plugin["params"],
        "models": [{"id": "chime", "state": "serving", "reason": None, "source": "plugin brigantine_chime"}],
    }
    assert plugin in httpx.get(f"{chimes.url}/v1/plugins").json()["data"]


def test_its_model_is_in_the_metrics(chimes: Server):
    ask(chimes, n=2)

    metrics = httpx.get(f"{chimes.url}/metrics").text
    assert 'brigantine_requests_total{content="chime",model="chime",status="200"}' in metrics
    assert 'brigantine_plugin_up{plugin="chime"} 1.0' in metrics
    assert 'model_info{content="chime"' in metrics


def test_rows_of_the_model_are_made_in_batches(chimes: Server):
    seeds = httpx.get(f"{chimes.url}/v1/models/chime").json()["seeds"]

    assert seeds["batched"]
    assert seeds["tried_batch"] >= 2


def test_the_others_serve_and_nothing_is_said_in_the_log(chimes: Server):
    assert httpx.post(f"{chimes.url}/v1/images/generations", json={"prompt": "seven"}).status_code == 200
    assert chimes.crashes == []
