"""Workers that are forked are what they would be if each were started by itself."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

SUPERVISOR = """
    import atexit, json, os, signal, socket, sys, time
    from brigantine import nest as module
    from brigantine.nest import Nest, Order

    module._PATIENCE_S = 1.0

    atexit.register(print, "the supervisor's last word")
    nest = Nest(["wave"])
    listener = socket.create_server(("127.0.0.1", 0))
    environment = {"PATH": os.environ["PATH"], "ONLY": "\\udcff"}
    order = Order(["worker", *sys.argv[1:]], environment, sys.path[0], listener.fileno())
    pid = nest.hatch(order)
    waited, status = os.waitpid(pid, 0)
    print(json.dumps({"own": os.getpid(), "nest": nest.pid, "pid": pid, "code": os.waitstatus_to_exitcode(status)}))

    os.kill(nest.pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert nest.hatch(order) is None, "a nest that does not answer"
    os.kill(nest.pid, signal.SIGCONT)
    assert nest.hatch(order) is None, "nor is it asked again"
    assert 0.5 < time.monotonic() - begin < 5
    os.waitpid(nest.pid, 0)  # it ends, with nobody to serve

    gone = Nest()
    os.kill(gone.pid, signal.SIGKILL)
    assert gone.hatch(order) is None
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


def hatched(
    folder: Path, ends: str
) -> tuple[dict[str, Any], dict[str, Any], subprocess.CompletedProcess[str]]:
    """What a worker that ends so says of itself, and what its supervisor does."""
    (folder / "wave.py").touch()
    (folder / "supervisor.py").write_text(textwrap.dedent(SUPERVISOR))
    # The supervisor's own socket comes after its end of the pair.
    (folder / "worker.py").write_text(textwrap.dedent(WORKER).replace("LISTENER", "4"))
    ran = subprocess.run(
        [sys.executable, folder / "supervisor.py", ends],
        input="not for workers",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
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
    assert (ran.returncode, ran.stderr) == (0, "")


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
