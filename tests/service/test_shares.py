"""Every worker knows how many connections the others have, and forgets those that have died."""

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brigantine.shares import Shares

# Another worker: has as many connections as it is told, line by line.
WORKER = """
import sys
from pathlib import Path
from brigantine.shares import Shares

shares = Shares(Path(sys.argv[1]))
for line in sys.stdin:
    shares.leave() if line == "leave\\n" else shares.tell(int(line))
    print(shares.fewest(), flush=True)
"""


@contextmanager
def worker(file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], word: int | str) -> float:
    """Tell it; the fewest that it then knows of others."""
    assert process.stdin is not None and process.stdout is not None
    print(word, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def test_alone_there_is_nobody_to_leave_a_connection_to(tmp_path: Path):
    shares = Shares(tmp_path / "connections")
    shares.tell(3)
    shares.sweep()

    assert shares.fewest() == math.inf


def test_each_knows_the_fewest_of_the_others(tmp_path: Path):
    mine = Shares(tmp_path / "connections")
    mine.tell(5)
    with worker(tmp_path / "connections") as one, worker(tmp_path / "connections") as other:
        assert say(one, 7) == 5
        assert say(other, 0) == 5
        assert mine.fewest() == 0
        assert say(other, 9) == 5
        assert mine.fewest() == 7
        mine.leave()
        assert say(one, 7) == 9
        assert say(other, "leave") == 7
        assert mine.fewest() == 7


def test_one_that_was_killed_is_forgotten_and_its_number_given_to_the_next(tmp_path: Path):
    mine = Shares(tmp_path / "connections")
    with worker(tmp_path / "connections") as one, worker(tmp_path / "connections") as other:
        say(one, 2)
        say(other, 4)
        one.send_signal(signal.SIGKILL)
        one.wait()
        assert mine.fewest() == 2
        mine.sweep()
        assert mine.fewest() == 4  # who lives is kept
        with worker(tmp_path / "connections") as third:
            say(third, 1)
            assert mine.fewest() == 1
