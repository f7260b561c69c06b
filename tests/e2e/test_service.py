"""The server as those who run it see it."""

import os
import re
import socket
import subprocess
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.server import BIN, Server, serving, until
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[2]


def run(*command: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"} | env
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def metric(server: Server, sample: str) -> float:
    """The value of one sample of /metrics; 0 when there is none yet."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def test_a_published_model_serves_after_a_restart(tmp_path: Path):
    (tmp_path / "bentoml").mkdir()
    published = run(
        "brigantine",
        "models",
        "publish",
        str(tiny_model(tmp_path)),
        "--name",
        "my-digits",
        home=tmp_path / "bentoml",
    )
    assert published.stdout.startswith("published my-digits:"), published.stderr

    with serving(tmp_path) as server:
        listed = [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]]
        answer = httpx.post(f"{server.url}/v1/models/my-digits/generate", json={"label": "two"}).json()

    assert {"mnist", "my-digits"} <= set(listed)
    assert answer["data"][0]["label"] == "two"


def test_metrics_count_requests_and_media(tmp_path: Path):
    with serving(tmp_path) as server:
        for _ in range(3):
            httpx.post(f"{server.url}/v1/models/mnist/generate", json={"n": 2})

        assert metric(server, 'brigantine_requests_total{content="image",model="mnist",status="200"}') == 3
        assert metric(server, 'brigantine_outputs_total{content="image",model="mnist"}') == 6


def test_workers_count_as_one_and_one_that_is_killed_is_replaced(tmp_path: Path):
    answered = 'brigantine_requests_total{content="image",model="mnist",status="200"}'

    with serving(tmp_path, BRIGANTINE_WORKERS="2") as server:
        assert until(lambda: server.log.count("model mnist: serving") == 2)
        workers = server.workers
        assert len(workers) == 2

        def ask() -> int:
            return httpx.post(f"{server.url}/v1/models/mnist/generate", json={}).status_code

        assert [ask() for _ in range(20)] == [200] * 20  # each by a connection of its own
        assert metric(server, answered) == 20
        workers[0].kill()
        assert until(lambda: server.log.count("model mnist: serving") == 3), server.log
        assert workers[1] in server.workers
        assert [ask() for _ in range(20)] == [200] * 20
        assert metric(server, answered) == 40


def test_workers_have_the_weights_of_a_model_in_memory_once(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="2") as server:
        assert until(lambda: server.log.count("model shakespeare: serving") == 2)
        for worker in server.workers:
            mapped = [
                one for one in worker.memory_maps() if one.path.endswith("/weights") and "shake" in one.path
            ]
            resident, share = sum(one.rss for one in mapped), sum(one.pss for one in mapped)
            assert resident > 12 * 2**20
            assert share < 0.6 * resident
        server.workers[0].kill()
        assert until(lambda: server.log.count("model shakespeare: serving") == 3), server.log
        written = [
            {one.path for one in worker.memory_maps() if one.path.endswith("/weights")}
            for worker in server.workers
        ]
        assert written[0] == written[1] and len(written[0]) == 2


def test_a_worker_has_one_heap(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="1") as server:
        [worker] = server.workers
        assert further_heaps(worker) == 0


def further_heaps(process: psutil.Process) -> int:
    """How many glibc has made beside the first one: each may grow up to its next multiple of 64 MiB."""
    size = 2**26
    mapped = [
        (*(int(address, 16) for address in line.split()[0].split("-")), line.split()[1])
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    ]
    return sum(
        begin % size == 0 and rights == "rw-p" and reserved == "---p" and end == begin + size
        for (begin, _, rights), (_, end, reserved) in pairwise(mapped)
    )


def test_one_worker_alone_keeps_the_weights_to_itself(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="1") as server:
        assert until(lambda: server.log.count("model shakespeare: serving") == 1)
        [worker] = server.workers
        assert not [one for one in worker.memory_maps() if one.path.endswith("/weights")]


def test_workers_have_a_share_each_of_the_connections_that_one_client_opens_at_once(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="2") as server, ExitStack() as clients:
        address = "127.0.0.1", int(server.url.rpartition(":")[2])

        def both_take() -> bool:
            clients.enter_context(socket.create_connection(address))
            return len(server.workers) == 2 and min(taken(server)) > 0

        assert until(both_take)
        before = sum(taken(server))
        for _ in range(40):
            clients.enter_context(socket.create_connection(address))
        assert until(lambda: sum(taken(server)) == before + 40)
        assert min(taken(server)) > max(taken(server)) / 2


def taken(server: Server) -> list[int]:
    """The connections with clients that each worker has."""
    return [
        sum(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections())
        for worker in server.workers
    ]


def test_a_second_service_leaves_the_counts_of_the_first_alone(tmp_path: Path):
    with serving(tmp_path) as server:
        httpx.post(f"{server.url}/v1/models/mnist/generate", json={"n": 2})
        with serving(tmp_path) as other:
            assert metric(other, 'brigantine_outputs_total{content="image",model="mnist"}') == 0
        assert metric(server, 'brigantine_outputs_total{content="image",model="mnist"}') == 2


def test_a_client_that_hangs_up_is_forgotten(tmp_path: Path):
    body = b'{"n": 4096}'
    head = f"POST /v1/models/mnist/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    in_flight = 'brigantine_in_flight{model="mnist"}'
    slow = {  # row by row on one thread: seconds of work, so that none of it is done before the clients have gone
        "BRIGANTINE_MAX_N": "4096",
        "BRIGANTINE_QUEUE_ROWS": "32768",
        "BRIGANTINE_MAX_BATCH": "1",
        "BRIGANTINE_THREADS": "1",
        "BRIGANTINE_TIMEOUT_S": "600",
    }
    with serving(tmp_path, **slow) as server:
        url = httpx.URL(server.url)
        with ExitStack() as clients:
            for _ in range(5):
                client = clients.enter_context(socket.create_connection((url.host, url.port or 80)))
                client.sendall(head.encode() + body)
            assert until(lambda: metric(server, in_flight) == 5)

        assert until(lambda: server.log.count(" 499 ") == 5), server.log
        assert until(lambda: metric(server, in_flight) == 0)
        assert metric(server, 'brigantine_requests_total{content="image",model="mnist",status="499"}') == 5
        assert metric(server, 'brigantine_outputs_total{content="image",model="mnist"}') == 0
        assert server.crashes == []
    assert server.process.returncode == 0, "a request that was left hanging keeps the server from stopping"


def test_a_stop_is_clean(tmp_path: Path):
    with serving(tmp_path) as server:
        pass

    assert server.process.returncode == 0, server.log
    assert server.crashes == []


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"BRIGANTINE_THREAD": "2"}, "BRIGANTINE_THREAD: no such setting; did you mean BRIGANTINE_THREADS?"),
        ({"BRIGANTINE_DEVICE": "tpu"}, "BRIGANTINE_DEVICE: "),
        ({"BRIGANTINE_DEFAULT_MODEL": "nine"}, "model 'nine': expected one of mnist"),
        ({"BRIGANTINE_REQUIRE_GPU": "1", "CUDA_VISIBLE_DEVICES": ""}, "a GPU is required, but ONNX Runtime"),
        ({"BRIGANTINE_MODELS_DIR": "/nowhere"}, "BRIGANTINE_MODELS_DIR: expected a folder, got /nowhere"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(tmp_path: Path, env: dict[str, str], message: str):
    ended = run("brigantine", "serve", home=tmp_path, **env)

    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_occupied_port_ends_the_start_with_one_line(server: Server, tmp_path: Path):
    ended = run("brigantine", "serve", "--port", str(httpx.URL(server.url).port), home=tmp_path)

    assert ended.returncode == 1
    assert re.search(r"expected an address to listen on, got .*PORT=3100", ended.stderr)
    assert "Traceback" not in ended.stdout + ended.stderr


def test_strict_ends_the_start_when_a_model_is_damaged(tmp_path: Path):
    (tiny_model(tmp_path / "models", "bad") / "model.onnx").write_bytes(b"damaged")
    env = {"BRIGANTINE_STRICT": "1", "BRIGANTINE_MODELS_DIR": str(tmp_path / "models")}

    ended = run("brigantine", "serve", home=tmp_path, **env)

    assert ended.returncode == 1
    assert "plugin_invalid: bad: " in ended.stderr
    assert "expected sha256" in ended.stderr


def test_generate_without_a_server_gives_what_the_server_gives(server: Server, tmp_path: Path):
    out = tmp_path / "seven.png"
    made = run(
        "brigantine",
        "generate",
        "--model",
        "mnist",
        "--label",
        "7",
        "--seed",
        "7",
        "--out",
        str(out),
        home=tmp_path,
    )
    assert made.returncode == 0, made.stderr

    served = httpx.post(
        f"{server.url}/v1/models/mnist/generate",
        json={"label": 7, "seed": 7},
        headers={"accept": "image/png"},
    )
    assert served.content == out.read_bytes()


def test_a_bento_is_built_and_serves_the_same_bytes(server: Server, tmp_path: Path):
    built = run("bentoml", "build", "--output", "tag", home=tmp_path / "bentoml")
    assert built.returncode == 0, built.stdout + built.stderr
    tag = re.search(r"brigantine:(\w+)", built.stdout)
    assert tag is not None
    # In the image the Bento's own sources are installed; here they come first on the path, before the checkout.
    src = tmp_path / "bentoml" / "bentos" / "brigantine" / tag[1] / "src"
    path = os.pathsep.join(str(src / folder) for folder in ("service", "plugins", "training"))
    where = subprocess.run(
        [BIN / "python", "-c", "import brigantine as a, brigantine_image as b; print(a.__file__, b.__file__)"],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.count(str(src)) == 2

    body = {"prompt": "seven", "n": 16, "seed": 7, "label": 7}
    with serving(tmp_path, ("bentoml", "serve", "brigantine:latest"), PYTHONPATH=path) as bento:
        ours = httpx.post(f"{bento.url}/v1/images/generations", json=body).json()["data"]

    assert ours == httpx.post(f"{server.url}/v1/images/generations", json=body).json()["data"]
