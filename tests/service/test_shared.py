"""What the processes of a service tell each other."""

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from brigantine.shared import Shared

KILLED = """
import os
from brigantine.shared import Shared

print(Shared.create().folder, flush=True)
if not os.fork():
    input()
os.kill(os.getpid(), 9)
"""
WORKER = """
import time
from brigantine.shared import Shared

Shared.found().answer()
print(1, flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(shared: Shared) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE) as worker:
        yield worker
        worker.kill()


def heard(ear: int, within_s: float = 10) -> bytes | None:
    """None: nothing, in that time."""
    readable, _, _ = select.select([ear], [], [], within_s)
    return os.read(ear, 64) if readable else None


def test_one_that_begins_is_heard_and_that_the_last_one_has_died(
    shared: Shared, worker: subprocess.Popen[bytes]
):
    ear = shared.listen()
    assert heard(ear) == b"!"
    mine = shared.answer()
    assert heard(ear) == b"!"
    worker.kill()
    worker.wait()
    assert heard(ear, 0.1) is None
    os.close(mine)
    assert heard(ear) == b""

    again = shared.listen()
    os.close(ear)
    assert heard(again, 0.1) is None, "the end of before is no end of what has not begun"
    mine = shared.answer()
    assert heard(again) == b"!"
    os.close(mine)
    os.close(again)


def test_one_that_begins_waits_until_nobody_stands_in_its_place(
    shared: Shared, worker: subprocess.Popen[bytes]
):
    assert worker.stdout is not None
    ear = shared.listen()
    with shared.standing_in():
        assert heard(ear) == b"!"
        assert not select.select([worker.stdout], [], [], 0.3)[0]
    assert select.select([worker.stdout], [], [], 10)[0]
    os.close(ear)


def test_it_does_not_wait_for_ever(shared: Shared, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("brigantine.shared._PATIENCE_S", 0.5)
    with shared.standing_in():
        begin = time.monotonic()
        threads = [threading.Thread(target=lambda: os.close(shared.answer())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert 0.4 < time.monotonic() - begin < 10


def test_what_services_that_were_killed_have_left_is_removed_and_nothing_else(shared: Shared, tmp_path: Path):
    of_others = [tmp_path / "brigantine-run-begun", tmp_path / "brigantine-tests-1", tmp_path / "else"]
    for folder in of_others:
        folder.mkdir()
    (of_others[1] / "answering").touch()
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as killed:
        assert killed.stdin is not None and killed.stdout is not None
        left = Path(killed.stdout.readline().decode().strip())
        killed.wait()

        def kept() -> set[Path]:
            Shared.create()
            return {*tmp_path.iterdir()}

        assert kept() >= {left, shared.folder, *of_others}, "its worker has not ended yet"
        killed.stdin.close()
        assert killed.stdout.read() == b""
        deadline = time.monotonic() + 10  # it has closed that, and is about to close the rest
        while left in kept() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left not in kept()
        assert kept() >= {shared.folder, *of_others}
