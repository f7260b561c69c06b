"""Who answers while no worker does, and who does not."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from brigantine.doorman import Doorman
from brigantine.shared import Shared


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def asked(listener: socket.socket, patience_s: float = 10) -> bytes:
    with socket.create_connection(listener.getsockname(), timeout=patience_s) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        return client.recv(1 << 16)


def test_one_that_is_silent_answers_nobody_and_knows_that_a_worker_does(
    shared: Shared, listener: socket.socket
):
    doorman = Doorman(listener.fileno(), shared, silent=True)

    with pytest.raises(TimeoutError):
        asked(listener, 0.3)
    os.close(shared.answer())
    deadline = time.monotonic() + 10
    while not doorman.opened and time.monotonic() < deadline:
        time.sleep(0.01)
    assert doorman.opened


def test_one_that_has_left_does_not_mind_that_the_socket_is_shut_down(
    shared: Shared, listener: socket.socket, capfd: pytest.CaptureFixture[str]
):
    doorman = Doorman(listener.fileno(), shared)
    assert asked(listener).startswith(b"HTTP/1.1 200 OK")

    doorman.close()
    listener.shutdown(socket.SHUT_RDWR)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    time.sleep(0.5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.2
    assert capfd.readouterr().err == ""


def test_a_client_that_was_let_in_as_a_worker_begins_to_answer_is_answered(
    shared: Shared, listener: socket.socket
):
    doorman = Doorman(listener.fileno(), shared)
    assert asked(listener)
    is_held, both_have_come = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        both_have_come.wait(30)

    doorman._loop.call_soon_threadsafe(hold)
    assert is_held.wait(30)
    worker = threading.Thread(target=shared.answer)
    worker.start()
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
        both_have_come.set()

        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    worker.join()
