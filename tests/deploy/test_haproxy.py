"""haproxy.cfg as HAProxy itself runs it, in front of two stand-ins for replicas."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
from deploy_check.product import OTHERS

from tests.deploy.balancer import Answer, Balancer, balancing, request
from tests.e2e.server import until

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="needs haproxy: apt-get install haproxy"
)


class Replica(ThreadingHTTPServer):
    """Answers as the service does, in the respects that count for HAProxy."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.ready = True
        self.refuses = False
        self.dies = False
        self.answered = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """HAProxy breaks a connection that it needs no more."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path == "/readyz":
            self.say(200 if self.server.ready else 503, b"{}")
        else:
            self.stream()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.dies:
            self.close_connection = True
            return
        if self.server.refuses:
            self.say(503, b'{"error":{"code":"not_ready"}}')
            return
        time.sleep(body["seconds"])
        self.server.answered += 1
        self.say(200, self.server.name.encode())

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (b"data: a\n\n", b"data: b\n\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.8)
        self.wfile.write(b"0\r\n\r\n")

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = None, size: object = None) -> None:
        pass


class Proxy(NamedTuple):
    balancer: Balancer
    one: Replica
    two: Replica

    def ask(self, seconds: float = 0.0) -> Answer:
        body = json.dumps({"seconds": seconds})
        return request(self.balancer.port, "POST", "/v1/models/mnist/generate", body)

    def wait_for(self, replicas: int) -> None:
        """Until HAProxy gives work to so many."""
        assert until(lambda: self.balancer.replicas_up() == replicas)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    one, two = Replica("one"), Replica("two")
    try:
        with balancing(one.server_port, two.server_port) as balancer:
            yield Proxy(balancer, one, two)
    finally:
        for replica in (one, two):
            replica.stop()


def test_both_replicas_have_work(proxy: Proxy):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(proxy.ask, [0.05] * 40))

    assert {answer.status for answer in answers} == {200}
    assert proxy.one.answered >= 10 and proxy.two.answered >= 10


def test_no_request_fails_while_a_replica_drains_ends_and_comes_back(proxy: Proxy):
    statuses: list[int] = []
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            statuses.append(proxy.ask(0.01).status)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        time.sleep(0.5)
        proxy.one.ready, proxy.one.refuses = False, True
        proxy.wait_for(1)
        proxy.one.dies = True
        time.sleep(0.5)
        proxy.one.ready, proxy.one.refuses, proxy.one.dies = True, False, False
        proxy.wait_for(2)
        before = proxy.one.answered
        assert until(lambda: proxy.one.answered > before)
        over.set()
    for client in clients:
        client.result()

    assert len(statuses) > 100
    assert set(statuses) == {200}


def test_what_a_draining_replica_has_begun_is_finished(proxy: Proxy):
    proxy.two.ready = False
    proxy.wait_for(1)
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(proxy.ask, 2.0)
        time.sleep(0.3)
        proxy.one.ready, proxy.two.ready = False, True
        assert until(lambda: proxy.balancer.replicas_up() == 1 and proxy.ask().body == b"two")

    assert begun.result()[:2] == (200, b"one")


@pytest.mark.parametrize("fault", ["dies", "refuses"])
def test_a_request_that_a_replica_does_not_make_is_made_by_the_other(proxy: Proxy, fault: str):
    """Before any check has told HAProxy of it."""
    setattr(proxy.one, fault, True)

    answers = [proxy.ask() for _ in range(20)]

    assert {answer[:2] for answer in answers} == {(200, b"two")}


def test_more_than_the_replicas_take_at_a_time_waits(proxy: Proxy):
    with ThreadPoolExecutor(160) as pool:
        answers = list(pool.map(proxy.ask, [0.3] * 160))

    assert [answer.status for answer in answers] == [200] * 160


def test_no_replica_is_an_error_of_ours_with_a_time_to_come_back(proxy: Proxy):
    proxy.one.ready = proxy.two.ready = False
    proxy.wait_for(0)

    answer = proxy.ask()

    assert (answer.status, answer.retry_after) == (503, "1")
    assert json.loads(answer.body)["error"]["code"] == "not_ready"


def test_a_refusal_of_both_comes_through_as_it_is(proxy: Proxy):
    proxy.one.refuses = proxy.two.refuses = True

    answer = proxy.ask()

    assert answer[:2] == (503, b'{"error":{"code":"not_ready"}}')


def test_a_stream_comes_part_by_part(proxy: Proxy):
    connection = HTTPConnection("127.0.0.1", proxy.balancer.port, timeout=20)
    connection.request("GET", "/stream")
    response = connection.getresponse()
    begin = time.monotonic()

    first = response.read1()
    took = time.monotonic() - begin

    assert first == b"data: a\n\n" and took < 0.6
    assert response.read() == b"data: b\n\n"
    connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "/metrics?x=1"])
def test_the_metrics_of_a_replica_are_not_published(proxy: Proxy, path: str):
    answer = request(proxy.balancer.port, "GET", path)

    assert answer.status == 404
    assert json.loads(answer.body)["error"]["code"] == "not_found"


def test_haproxy_has_the_metrics_that_the_check_knows(proxy: Proxy):
    lines = proxy.balancer.metrics()

    for name, labels in OTHERS.items():
        if name.startswith("haproxy_"):
            [sample] = [line for line in lines if line.startswith(f'{name}{{proxy="replicas"')]
            assert all(f'{label}="' in sample for label in labels)
