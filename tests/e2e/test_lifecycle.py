"""From the start to the end of a service, as an orchestrator and its clients see it."""

import json
import os
import re
import shutil
import signal
import socket
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.server import Server, launching, serving, until
from tests.plugins_dir import GOOD, plugin_file
from tests.slack import SLACK
from tests.tiny import tiny_model
from tests.typist import typist_model

LAME_DUCK = {"BRIGANTINE_LAME_DUCK_SECONDS": "3"}


@contextmanager
def asking(
    server: Server, method: str = "GET", path: str = "/readyz", **body: object
) -> Iterator[HTTPResponse]:
    """An answer on a connection of its own, its head read."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body else None)
        yield connection.getresponse()
    finally:
        connection.close()


def stream(server: Server, tokens: int, pace_s: float) -> AbstractContextManager[HTTPResponse]:
    return asking(
        server,
        "POST",
        "/v1/completions",
        model="prose",
        prompt="a",
        max_tokens=tokens,
        pace_s=pace_s,
        stream=True,
    )


def streams_of_all(server: Server, clients: ExitStack) -> list[HTTPResponse]:
    """At least eight streams, some from each worker: which one takes a connection is chance."""
    streams: list[HTTPResponse] = []
    while len(streams) < 8 or not all(map(_is_connected, server.workers)):
        assert len(streams) < 64, "a worker that takes no connection"
        streams.append(clients.enter_context(stream(server, 130, 0.05)))
    return streams


def _is_connected(worker: psutil.Process) -> bool:
    return any(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections("tcp"))


def refused(answer: HTTPResponse) -> None:
    """It is 503, says why and when to come again, and keeps no connection."""
    body = answer.read()
    assert answer.status == 503, body
    assert json.loads(body)["error"]["code"] == "not_ready"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"


def slow_plugins(folder: Path) -> dict[str, str]:
    """Settings with which every worker loads for two seconds more."""
    folder.mkdir()
    plugin_file(folder, "ink", f"import time\ntime.sleep(2)\n{textwrap.dedent(GOOD)}")
    return {"BRIGANTINE_PLUGINS_DIR": str(folder)}


def test_while_it_loads_it_lives_and_says_that_it_is_not_ready(tmp_path: Path):
    with launching(tmp_path, **slow_plugins(tmp_path / "plugins")) as server:
        assert until(lambda: _opened(server))
        with asking(server) as ready, asking(server, path="/livez") as alive:
            assert alive.status == 200
            assert b"loading its models" in ready.peek()
            refused(ready)
        with asking(server, "POST", "/v1/models/mnist/generate", seed=1) as made:
            refused(made)
        assert until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        assert httpx.post(f"{server.url}/v1/models/mnist/generate", json={}).status_code == 200


def test_once_a_worker_has_answered_nobody_is_told_that_none_does(tmp_path: Path):
    env = {"BRIGANTINE_WORKERS": "2", **slow_plugins(tmp_path / "plugins")}
    with launching(tmp_path, **env) as server, ThreadPoolExecutor(4) as clients:
        assert until(lambda: _opened(server))
        before = [one for several in clients.map(_asked, [server] * 4) for one in several]
        first_s = min(ended_s for _, ended_s, status in before if status == 200)
        after = [status for begun_s, _, status in before if begun_s > first_s]

    assert len(after) > 20
    assert set(after) == {200}
    assert 503 in {status for _, _, status in before}


def _asked(server: Server) -> list[tuple[float, float, int]]:
    """When each of many requests, one after the other, began and ended, and with which status; the last 20 with 200."""
    asked: list[tuple[float, float, int]] = []
    while [status for _, _, status in asked[-20:]] != [200] * 20:
        begin = time.monotonic()
        with asking(server) as answer:
            answer.read()
        asked.append((begin, time.monotonic(), answer.status))
    return asked


def _opened(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/livez").status_code == 200
    except httpx.TransportError:
        return False


PLAIN = ("bentoml", "serve", "brigantine.app:Brigantine", "--host", "127.0.0.1")


@pytest.mark.parametrize(
    ("command", "set_"),
    [(("brigantine", "serve"), "SigCgt"), (("brigantine", "serve"), "SigBlk"), (PLAIN, "SigCgt")],
    ids=["before BentoML", "while BentoML is loaded", "bentoml"],
)
def test_a_start_that_is_asked_to_stop_does_so_as_the_first_process_of_a_container_too(
    command: tuple[str, ...], set_: str, tmp_path: Path
):
    """That one is ended by no signal for which it has no handler."""
    with launching(tmp_path, command) as server:
        assert until(lambda: _has_in(set_, server.process.pid))
        server.process.terminate()

        assert server.process.wait(20) == 128 + signal.SIGTERM
        assert not server.log


def _has_in(set_: str, pid: int) -> bool:
    """Whether SIGTERM is in one of a process's sets of signals (proc(5))."""
    [mask] = re.findall(rf"^{set_}:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


def test_a_stop_while_the_workers_are_started_is_not_lost(tmp_path: Path):
    with launching(tmp_path, BRIGANTINE_WORKERS="2") as server:
        assert until(lambda: _opened(server))
        server.process.terminate()

        assert server.process.wait(20) == 0
    assert server.crashes == []
    assert "model mnist: serving" not in server.log


def test_a_stop_while_workers_are_replaced_is_not_lost(tmp_path: Path):
    env = {"BRIGANTINE_PLUGINS_DIR": str(typist_model(tmp_path / "plugins")), "BRIGANTINE_WORKERS": "1"}
    with serving(tmp_path, **env) as server, stream(server, 60, 0.05) as answer:
        assert answer.read(1)
        server.process.send_signal(signal.SIGHUP)
        assert until(lambda: "finishes what is under way" in server.log)
        server.process.terminate()

        assert answer.read().endswith(b"data: [DONE]\n\n")
        assert server.process.wait(20) == 0
    assert server.crashes == []


def test_a_stop_finishes_what_is_under_way_and_refuses_what_is_new(tmp_path: Path):
    env = {"BRIGANTINE_PLUGINS_DIR": str(typist_model(tmp_path / "plugins")), "BRIGANTINE_WORKERS": "2"}
    with serving(tmp_path, **env, **LAME_DUCK) as server, ExitStack() as clients:
        assert until(lambda: server.log.count("model prose: serving") == 2)
        streams = [clients.enter_context(stream(server, 120, 0.05)) for _ in range(8)]
        kept = HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        kept.request("GET", "/readyz")
        assert kept.getresponse().read()

        server.process.terminate()
        assert until(lambda: server.log.count("finishes what is under way") == 2)
        begin = time.monotonic()
        kept.request("GET", "/readyz")
        refused(kept.getresponse())
        longest_s = 0.0
        while streams[0].peek(1) and not streams[0].isclosed() and time.monotonic() - begin < 4.5:
            asked = time.monotonic()
            with asking(server) as ready:
                refused(ready)
            with asking(server, "POST", "/v1/models/mnist/generate", seed=1) as made:
                refused(made)
            with asking(server, path="/livez") as alive:
                assert alive.status == 200
            longest_s = max(longest_s, time.monotonic() - asked)
            time.sleep(0.05)
        told = [one.read() for one in streams]

        assert longest_s < 2 * SLACK
        assert all(one.endswith(b"data: [DONE]\n\n") and b'"error"' not in one for one in told)
        assert server.process.wait(20) == 0
    assert server.crashes == []


def test_a_client_that_does_not_read_a_stream_has_hung_up_before_it_is_all_made(tmp_path: Path):
    env = {"BRIGANTINE_PLUGINS_DIR": str(typist_model(tmp_path / "plugins")), "BRIGANTINE_WORKERS": "1"}
    body = json.dumps({"model": "prose", "max_tokens": 500, "pace_s": 0.03, "logprobs": 5, "stream": True})
    with serving(tmp_path, **env) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = server.url.removeprefix("http://").partition(":")
        client.connect((host, int(port)))
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(f"{head}{body}".encode())
        begin = time.monotonic()

        in_flight = 'brigantine_in_flight{model="prose"} '
        assert until(lambda: f"{in_flight}1.0" in httpx.get(f"{server.url}/metrics").text)
        assert until(lambda: f"{in_flight}0.0" in httpx.get(f"{server.url}/metrics").text, 20)
        assert time.monotonic() - begin < 500 * 0.03
        assert '{content="text",model="prose",status="499"} 1.0' in httpx.get(f"{server.url}/metrics").text


def test_what_is_not_finished_in_time_is_given_up(tmp_path: Path):
    env = {
        "BRIGANTINE_PLUGINS_DIR": str(typist_model(tmp_path / "plugins")),
        "BRIGANTINE_WORKERS": "1",
        "BRIGANTINE_DRAIN_SECONDS": "0.5",
    }
    with serving(tmp_path, PLAIN, **env) as server, stream(server, 400, 0.1) as answer:
        server.process.terminate()
        begin = time.monotonic()
        told = answer.read()

        assert (
            "the service has stopped"
            in json.loads(told.split(b"data: ")[-1].split(b"\n")[0])["error"]["message"]
        )
        assert server.process.wait(20) == 0
        assert time.monotonic() - begin < 8 * SLACK


def test_a_worker_that_is_killed_fails_its_clients_at_once_and_is_replaced_in_a_container_too(tmp_path: Path):
    env = {
        "BRIGANTINE_PLUGINS_DIR": str(typist_model(tmp_path / "plugins")),
        "BRIGANTINE_WORKERS": "2",
        "BENTOML_CONTAINERIZED": "True",  # in which BentoML replaces none
    }
    with serving(tmp_path, **env) as server, ExitStack() as clients:
        assert until(lambda: server.log.count("model prose: serving") == 2)
        before = server.workers
        streams = streams_of_all(server, clients)
        in_flight = f"{server.url}/metrics"
        said = f'brigantine_in_flight{{model="prose"}} {len(streams)}.0'
        assert until(lambda: said in httpx.get(in_flight).text)

        before[0].kill()
        begin = time.monotonic()
        with ThreadPoolExecutor(len(streams)) as readers:
            ends = list(readers.map(_end, streams))
        assert 0 < sum(not whole for whole, _ in ends) < len(streams)
        assert all(whole or ended_s - begin < 2 * SLACK for whole, ended_s in ends)
        assert until(lambda: len(server.workers) == 2 and before[0] not in server.workers, 3 * SLACK)
        assert until(lambda: server.log.count("model prose: serving") == 3)
        assert until(lambda: 'brigantine_in_flight{model="prose"} 0.0' in httpx.get(in_flight).text), (
            "a dead gauge"
        )
        assert before[1] in server.workers
        assert "ended (SIGKILL); another one is started in 0 s" in server.log


def _end(answer: HTTPResponse) -> tuple[bool, float]:
    """Whether a stream came to its end, and when it ended."""
    try:
        told = answer.read()
    except OSError:
        told = b""
    except Exception as error:  # http.client's, of an answer that breaks off
        told = repr(error).encode()
    return told.endswith(b"data: [DONE]\n\n"), time.monotonic()


def test_while_the_only_worker_is_replaced_clients_are_told(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="1", **slow_plugins(tmp_path / "plugins")) as server:
        server.workers[0].kill()

        assert until(lambda: httpx.get(f"{server.url}/readyz", timeout=2).status_code == 503)
        with asking(server, "POST", "/v1/models/mnist/generate", seed=1) as made:
            assert b"lost its workers" in made.peek()
            refused(made)
        assert until(lambda: httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200)


def test_a_worker_is_replaced_although_the_nest_has_been_killed(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="1", **slow_plugins(tmp_path / "plugins")) as server:
        [before] = server.workers
        server.nest.kill()
        before.kill()

        assert until(lambda: httpx.get(f"{server.url}/readyz", timeout=2).status_code == 503)
        assert until(lambda: httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200)
        assert httpx.post(f"{server.url}/v1/models/mnist/generate", json={}).status_code == 200
        assert before not in server.workers
    assert server.process.returncode == 0


def test_a_service_of_which_no_worker_can_live_ends(tmp_path: Path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    plugin_file(folder, "ink", f"import os\nos.kill(os.getpid(), 9)\n{textwrap.dedent(GOOD)}")
    tiny_model(folder / "models", "blots", plugin="ink")

    with launching(tmp_path, BRIGANTINE_PLUGINS_DIR=str(folder), BRIGANTINE_WORKERS="3") as server:
        assert server.process.wait(30) == 1
    assert "the start has failed" in server.log
    assert "Traceback" not in server.log


def test_workers_end_with_their_supervisor(tmp_path: Path):
    with serving(tmp_path, BRIGANTINE_WORKERS="1") as server:
        ends = [*server.workers, server.nest]
        assert len(ends) == 2
        server.process.kill()

        gone, alive = psutil.wait_procs(ends, 20)
        assert len(gone) == 2, alive
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")


def test_it_can_be_stopped_although_what_it_keeps_has_been_removed(tmp_path: Path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with serving(tmp_path, BRIGANTINE_WORKERS="2", TMPDIR=str(temporary)) as server:
        shutil.rmtree(temporary)
        server.process.terminate()

        assert server.process.wait(20) == 0


def test_all_that_it_writes_is_in_the_folder_for_temporary_files(tmp_path: Path):
    """As in a container whose root is read-only."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"HOME": "/proc/nowhere", "TMPDIR": str(temporary), "BENTOML_HOME": str(temporary / "bentoml")}
    (tmp_path / "bentoml").mkdir()
    with serving(tmp_path, **env) as server:
        assert httpx.post(f"{server.url}/v1/models/mnist/generate", json={}).status_code == 200
    assert server.process.returncode == 0
    assert not any((tmp_path / "bentoml").iterdir())
    assert sorted(os.listdir(temporary)) == ["bentoml"], "what is not BentoML's is gone with the service"
