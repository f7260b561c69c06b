"""Several processes count as one."""

import os
import re
import subprocess
import sys
from pathlib import Path

# A worker: counts as many answers as it is told, and waits for the end of its input with one more request in work.
WORKER = """
import asyncio, sys
from brigantine.media import Media
from brigantine.metrics import Metrics

async def count(answers):
    metrics = Metrics()
    metrics.plugin_up.labels("image").set(answers != 5)
    mine = metrics.of("tiny", "image", lambda: 4)
    for _ in range(answers):
        mine.begin()
        mine.made([Media("image/png", b"12345678")], 0.001, 0.2)
        mine.end(200)
    mine.begin()
    await asyncio.sleep(0)
    print("counted", flush=True)

asyncio.run(count(int(sys.argv[1])))
sys.stdin.read()
"""
ASK = "from brigantine.metrics import Metrics; print(Metrics().exposition()[0].decode())"


def worker(folder: Path, answers: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(answers)],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "counted\n"
    return process


def samples(folder: Path) -> dict[str, float]:
    """What another worker shows when it is asked."""
    said = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name: float(value) for name, value in re.findall(r"^(brigantine\S+) (\S+)$", said.stdout, re.M)}


def test_workers_add_up_and_one_that_was_killed_keeps_its_counts_but_no_gauge(tmp_path: Path):
    workers = [worker(tmp_path, answers) for answers in (3, 5)]
    try:
        both = samples(tmp_path)
        workers[1].kill()
        workers[1].wait()
        after = samples(tmp_path)
    finally:
        for process in workers:
            process.kill()
            process.communicate()

    answered = 'brigantine_requests_total{content="image",model="tiny",status="200"}'
    assert both[answered] == after[answered] == 8
    assert both['brigantine_output_bytes_total{content="image",model="tiny"}'] == 64
    assert both['brigantine_request_seconds_sum{model="tiny"}'] == 8 * 0.2
    assert both['brigantine_request_seconds_bucket{le="0.25",model="tiny"}'] == 8
    in_work = 'brigantine_in_flight{model="tiny"}', 'brigantine_queue_rows{model="tiny"}'
    assert [both[gauge] for gauge in in_work] == [2, 8]
    assert [after[gauge] for gauge in in_work] == [1, 4]
    up = 'brigantine_plugin_up{plugin="image"}'
    assert (both[up], after[up]) == (0, 1), "one worker without a plugin is a plugin that is not up"
