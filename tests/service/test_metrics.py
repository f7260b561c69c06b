"""Several processes count as one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from brigantine.metrics import observe_all
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram

# A worker: counts as many answers as it is told, and waits for the end of its input with one more request in work.
WORKER = """
import asyncio, sys, time
from brigantine.media import Media
from brigantine.metrics import Metrics
from brigantine.job import Job
from brigantine.station import Made, Report, Step

def answered(metrics):
    job = Job({}, None, 7, "image/png")
    job.submitted_s = time.perf_counter() - 0.2
    job.made[0] = Made(Media("image/png", b"12345678"), 7, job.submitted_s + 0.001, 0, 0, 0, 1)
    metrics.begin()
    metrics.batch(Report([], [Step(1, 0.1, 0.01)], 0.01, 0.2), [job])
    metrics.end(200)

async def count(answers):
    metrics = Metrics()
    metrics.plugin_up.labels("image").set(answers != 5)
    mine = metrics.of("tiny", "image", lambda: 4)
    for _ in range(answers):
        answered(mine)
    mine.begin()
    await asyncio.sleep(0.2)
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
    assert 8 * 0.2 <= both['brigantine_request_seconds_sum{model="tiny"}'] < 8 * 0.3
    assert both['brigantine_stage_seconds_count{model="tiny",stage="queue"}'] == 8
    assert both['brigantine_batch_rows_sum{model="tiny"}'] == 8
    assert both['brigantine_request_seconds_bucket{le="0.5",model="tiny"}'] == 8
    in_work = 'brigantine_in_flight{model="tiny"}', 'brigantine_queue_rows{model="tiny"}'
    assert [both[gauge] for gauge in in_work] == [2, 8]
    assert [after[gauge] for gauge in in_work] == [1, 4]
    up = 'brigantine_plugin_up{plugin="image"}'
    assert (both[up], after[up]) == (0, 1), "one worker without a plugin is a plugin that is not up"


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.0]) | st.floats(0, 3), max_size=30))
def test_amounts_that_are_observed_together_are_those_that_are_observed_one_by_one(amounts: list[float]):
    """The seam: what `Histogram.observe` does is done for many at once, in its own parts."""
    together, alone = (
        Histogram("s", "Seconds.", ["model"], buckets=(0.1, 0.25, 1.0), registry=None).labels("m")
        for _ in range(2)
    )

    observe_all(together, amounts)
    for amount in amounts:
        alone.observe(amount)

    for one, other in zip(collected(together), collected(alone), strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2])


def collected(histogram: Histogram) -> list[tuple[str, dict[str, str], float]]:
    return [
        (one.name, one.labels, one.value)
        for family in histogram.collect()
        for one in family.samples
        if not one.name.endswith("_created")
    ]
