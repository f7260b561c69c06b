"""From the start to the end of a container. Its tests run in order, for they ask one and the same."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.server import until
from tests.image.container import IMAGE, PATIENCE_S, WORKERS, Container, engine, running, started
from tests.image.figures import at_most, beside

MEGABYTE = 1e6
# Of every process but this shell and the `cat` that it runs, which come with the question.
MEMORY = "cd /proc; for one in [0-9]*; do [ $one = $$ ] || cat $one/smaps_rollup; done 2>/dev/null; true"
CGROUP = "cat /sys/fs/cgroup/memory.current 2>/dev/null || cat /sys/fs/cgroup/memory/memory.usage_in_bytes"


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    with running(IMAGE) as container:
        yield container


def made(container: Container) -> httpx.Response:
    return httpx.post(f"{container.url}/v1/models/mnist/generate", json={"seed": 7}, timeout=10)


def test_it_starts_without_any_network():
    with started(IMAGE, "--network=none") as alone:
        assert until(alone.healthy, PATIENCE_S), alone.log


def test_it_is_ready_soon(container: Container):
    took_s = [container.ready_s]
    for _ in range(2):  # what else this machine does is no fault of the image
        with running(IMAGE) as another:
            took_s.append(another.ready_s)

    beside(f"start to ready, {WORKERS} workers, the slowest of three", max(took_s), "s")
    at_most(f"start to ready, {WORKERS} workers, the quickest of three", min(took_s), 5, "s")


def test_its_health_check_says_so(container: Container):
    assert until(container.healthy, PATIENCE_S)


def test_at_rest_it_takes_little_memory(container: Container):
    assert until(container.serving, PATIENCE_S), container.log
    time.sleep(2)  # what starting has taken is given back

    told = container.run("sh", "-c", MEMORY)
    each, once = (
        sum(map(int, re.findall(rf"^{kind}: +(\d+) kB", told, re.M))) * 1024 / MEGABYTE
        for kind in ("Rss", "Pss")
    )
    beside(
        "memory at rest, of the container's cgroup", int(container.run("sh", "-c", CGROUP)) / MEGABYTE, "MB"
    )
    beside("memory at rest, RSS, a page once for each process that has it", each, "MB")
    at_most(f"memory at rest, {WORKERS} workers, RSS with each page counted once (PSS)", once, 350, "MB")


def test_nothing_but_tmp_can_be_written(container: Container):
    folders = "/ /app /home /usr /tmp"

    assert container.run("sh", "-c", f"for one in {folders}; do touch $one/x && echo $one; done") == "/tmp\n"


def test_it_has_no_rights(container: Container):
    status = container.run("cat", "/proc/1/status")

    assert re.search(r"^Uid:\t1034\t1034\t1034\t1034$", status, re.M)
    assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\t(\w+)$", status, re.M) == ["0" * 16] * 3
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)


def test_a_worker_that_is_killed_is_replaced(container: Container):
    before = container.worker_pids()
    assert len(before) == WORKERS
    [victim, *_] = sorted(before)

    begin = time.monotonic()
    container.run("python", "-c", f"import os; os.kill({victim}, 9)")
    assert until(lambda: container.serving(WORKERS + 1)), container.log
    at_most("a worker that was killed is back", time.monotonic() - begin, 10, "s")

    after = container.worker_pids()
    assert len(after) == WORKERS and victim not in after and len(before & after) == WORKERS - 1
    assert [made(container).status_code for _ in range(20)] == [200] * 20


def test_a_stop_is_soon_and_clean(container: Container):
    assert made(container).status_code == 200

    begin = time.monotonic()
    engine("stop", "-t", "30", container.name)
    took_s = time.monotonic() - begin

    code = json.loads(engine("container", "inspect", container.name).stdout)[0]["State"]["ExitCode"]
    assert code == 0, container.log
    at_most("SIGTERM to the end, with exit code 0", took_s, 5, "s")


def test_without_a_gpu_it_refuses_to_start_where_one_is_required():
    begin = time.monotonic()
    ended = engine("run", "--rm", "--network=none", "--env=BRIGANTINE_REQUIRE_GPU=1", IMAGE, check=False)

    assert ended.returncode == 1
    assert "a GPU is required, but ONNX Runtime" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    at_most("BRIGANTINE_REQUIRE_GPU without a GPU ends", time.monotonic() - begin, 10, "s")
