"""Workers that are forked are what they would be if each were started by itself."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
    import atexit, errno, json, os, signal, socket, sys, time
    from brigantine import nest as module
    from brigantine.nest import Nest, Order

    settle = module._settle

    def late(*given):
        time.sleep(0.5)
        settle(*given)

    def order(*arguments):
        environment = {"PATH": os.environ["PATH"], "ONLY": "\\udcff"}
        return Order(arguments, environment, sys.path[0], listener.fileno())

    def ended(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
SUPERVISOR = """
    atexit.register(print, "the supervisor's last word")
    nest = Nest(["wave"])
    listener = socket.create_server(("127.0.0.1", 0))
    mine = order("worker", *sys.argv[1:])
    pid = nest.hatch(mine)
    print(json.dumps({"own": os.getpid(), "nest": nest.pid, "pid": pid, "code": ended(pid)}))

    nest._socket.settimeout(1)
    os.kill(nest.pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert nest.hatch(mine) is None, "a nest that does not answer"
    os.kill(nest.pid, signal.SIGCONT)
    assert nest.hatch(mine) is None, "nor is it asked again"
    assert 0.5 < time.monotonic() - begin < 30
    os.waitpid(nest.pid, 0)  # it ends, with nobody to serve

    gone = Nest()
    os.kill(gone.pid, signal.SIGKILL)
    assert gone.hatch(mine) is None
"""
HARDY = """
    fork, wanting = os.fork, []

    def seldom():
        if wanting and os.getpid() != own:
            raise OSError(errno.EAGAIN, wanting.pop())
        return fork()

    own = os.getpid()
    os.fork = seldom
    wanting.append("there is no room")
    listener = socket.create_server(("127.0.0.1", 0))
    nest = Nest()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        os.kill(nest.pid, number)
    assert nest.hatch(order("timeit", "-n1", "-r1")) is None
    assert ended(nest.hatch(order("timeit", "-n1", "-r1"))) == 0
"""
EARLY = """
    module._settle = late
    listener = socket.create_server(("127.0.0.1", 0))
    pid = Nest().hatch(order("timeit", "-n1", "-r1", "import time; time.sleep(5)"))
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == -signal.SIGTERM
"""
ORPHAN = """
    module._settle = late
    listener = socket.create_server(("127.0.0.1", 0))
    Nest().hatch(order("timeit", "-n1", "-r1", "import time; time.sleep(5); print('alive')"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
DRAWING = """
    listener = socket.create_server(("127.0.0.1", 0))
    nest = Nest(["numpy.random"])
    for _ in range(2):
        ended(nest.hatch(order("timeit", "-n1", "-r1", "import numpy; print('drawn', numpy.random.random())")))
"""
WORKER = """
    import atexit, json, os, signal, socket, sys

    loaded = "wave" in sys.modules
    atexit.register(print, "my last word")
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    print(json.dumps({
        "name": __name__, "loaded": loaded, "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
        "arguments": sys.argv[1:], "environment": sorted(os.environ), "folder": os.getcwd(),
        "defaults": handlers == [signal.SIG_DFL, signal.default_int_handler], "input": sys.stdin.read(),
        "listens": socket.socket(fileno=LISTENER).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
    }))
    exec(sys.argv[1])
"""


def supervised(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A supervisor that does this. It has ended, as have all that it has started."""
    (folder / "supervisor.py").write_text(textwrap.dedent(BEGIN) + textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, folder / "supervisor.py", *arguments],
        input="not for workers",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def hatched(
    folder: Path, ends: str
) -> tuple[dict[str, Any], dict[str, Any], subprocess.CompletedProcess[str]]:
    """What a worker that ends so says of itself, and what its supervisor does."""
    (folder / "wave.py").touch()
    # The supervisor's own socket comes after its end of the pair.
    (folder / "worker.py").write_text(textwrap.dedent(WORKER).replace("LISTENER", "4"))
    ran = supervised(folder, SUPERVISOR, ends)
    worker, supervisor, *_ = [json.loads(line) for line in ran.stdout.splitlines() if line[0] == "{"]
    return worker, supervisor, ran


def test_a_worker_is_a_child_of_the_supervisor_with_all_that_it_was_to_have(tmp_path: Path):
    worker, supervisor, ran = hatched(tmp_path, "pass")

    assert worker == {
        "name": "__main__",
        "loaded": True,
        "pid": supervisor["pid"],
        "parent": supervisor["own"],
        "session": supervisor["pid"],
        "arguments": ["pass"],
        "environment": ["ONLY", "PATH"],
        "folder": os.fspath(tmp_path),
        "defaults": True,
        "input": "",
        "listens": 1,
    }
    assert supervisor["code"] == 0
    assert ran.stdout.count("last word") == 2, "each says its own, once"
    assert ran.returncode == 0
    lost = [line for line in ran.stderr.splitlines() if "is lost" in line]
    assert len(lost) == 2 and len(ran.stderr.splitlines()) == 2, "once for each nest"


@pytest.mark.parametrize(
    ("ends", "code", "says"),
    [
        ("sys.exit(3)", 3, ""),
        ("sys.exit('the reason')", 1, "the reason"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("os.kill(os.getpid(), 15)", -15, ""),
    ],
)
def test_a_worker_ends_as_it_would_by_itself(tmp_path: Path, ends: str, code: int, says: str):
    _, supervisor, ran = hatched(tmp_path, ends)

    assert supervisor["code"] == code
    assert says in ran.stderr


def test_a_nest_bears_signals_and_a_want_of_processes(tmp_path: Path):
    ran = supervised(tmp_path, HARDY)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_worker_that_is_asked_to_end_before_it_is_one_does(tmp_path: Path):
    ran = supervised(tmp_path, EARLY)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_worker_whose_supervisor_is_killed_before_it_is_one_ends(tmp_path: Path):
    ran = supervised(tmp_path, ORPHAN)

    assert (ran.returncode, ran.stdout) == (-9, "")


def test_no_two_workers_draw_the_same_numbers(tmp_path: Path):
    drawn = [line for line in supervised(tmp_path, DRAWING).stdout.splitlines() if "drawn" in line]

    assert len(drawn) == len(set(drawn)) == 2
