"""Isolation: a process makes the same bytes as a thread does, and may die without taking the service with it."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from brigantine.discovery import Origin
from brigantine.engine import Engine
from brigantine.errors import BadParams, GenerationFailed, NotReady
from brigantine.job import Job
from brigantine.model import Model
from brigantine.process import ProcessLane, ProcessSpec
from brigantine.scheduler import Scheduler
from brigantine.session import SessionOptions
from brigantine.settings import Settings
from brigantine.station import Order, Report

from tests.service.odd import DEADLY, ENDLESS, LARGE, LARGE_BYTES, UNSENDABLE
from tests.service.toys import until
from tests.tiny import tiny_model

IMAGE = Origin("image", "brigantine_image:ImagePlugin", "brigantine")
ODD = Origin("image", "tests.service.odd:Odd", "tests")


@pytest.fixture
def isolated(settings: Settings) -> Settings:
    return settings.model_copy(update={"isolate": ("image",)})


@pytest.fixture
def engine(isolated: Settings) -> Iterator[Engine]:
    """An engine whose model has a process of its own."""
    engine = Engine.start(isolated, only="tiny")
    yield engine
    engine.close()


def processes() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ends just now
            if "brigantine.process" in " ".join(child.cmdline()):
                found.append(child)
    return found


def spec(path: Path, plugin: Origin = IMAGE, batch_timeout_s: float = 30) -> ProcessSpec:
    digest = Model.open(path).digest
    return ProcessSpec(path, "folder", digest, plugin, SessionOptions(), False, 9, 32, 60, batch_timeout_s)


def job(**body: Any) -> Job:
    return Job(body, None, 7, "image/png")


async def asked(one: Scheduler) -> None:
    wanted = job(label=0)
    one.submit(wanted)
    await wanted.done


@contextmanager
def scheduled(one: ProcessSpec) -> Iterator[Scheduler]:
    scheduler = Scheduler([ProcessLane(one)], max_batch=8, queue_rows=1000)
    yield scheduler
    scheduler.close()


async def bodies(engine: Engine, **body: Any) -> list[bytes]:
    return [media.body for media in (await engine.generate("tiny", body)).media]


def test_a_process_makes_the_bytes_that_threads_make(engine: Engine, settings: Settings):
    threads = Engine.start(settings, only="tiny")
    asked = [{"seed": seed, "n": 1 + seed % 40, "label": seed % 3} for seed in range(45)]

    async def all_at_once(one: Engine) -> list[list[bytes]]:
        return await asyncio.gather(*(bodies(one, **body) for body in asked))

    assert len(processes()) == 1
    assert asyncio.run(all_at_once(engine)) == asyncio.run(all_at_once(threads))
    threads.close()


def test_what_was_put_while_it_was_busy_is_one_batch(tmp_path: Path):
    async def scenario(lane: ProcessLane) -> list[Report]:
        told: list[Report] = []
        lane.on_report = told.append
        [process] = processes()
        process.suspend()
        for number in range(3):
            lane.put([Order(number, {"seed": number}, None, number, "image/png", 0, 1)], [])
        process.resume()
        await until(lambda: sum(len(report.outcomes) for report in told) == 3)
        return told

    lane = ProcessLane(spec(tiny_model(tmp_path)))
    [report] = asyncio.run(scenario(lane))
    lane.close()
    assert report.puts == 3
    assert [step.rows for step in report.steps] == [3]


def test_a_process_that_is_started_beside_many_connections_works(tmp_path: Path):
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    connections = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with scheduled(spec(tiny_model(tmp_path))) as one:
            for _ in range(2):
                asyncio.run(asked(one))
    finally:
        for connection in connections:
            os.close(connection)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def test_what_a_plugin_raises_in_a_process_reaches_its_client_with_its_field(engine: Engine):
    with pytest.raises(BadParams, match="label: expected an index from 0 to 2") as caught:
        asyncio.run(bodies(engine, label=9))

    assert caught.value.errors[0].field == "label"
    assert "ImagePlugin" in str(caught.value.__cause__) or "plugin.py" in str(caught.value.__cause__)


def test_stages_are_timed_across_processes(engine: Engine):
    generation = asyncio.run(engine.generate("tiny", {"n": 8}))

    assert all(seconds >= 0 for seconds in generation.stages_s.values())
    assert sum(generation.stages_s.values()) <= generation.total_s


def test_a_process_that_is_killed_fails_what_it_has_and_nothing_else(engine: Engine):
    async def scenario() -> None:
        before = await bodies(engine, seed=7, n=4)
        [victim] = processes()
        victim.suspend()
        asked = [asyncio.ensure_future(bodies(engine, seed=7, n=4)) for _ in range(20)]
        await asyncio.sleep(0.1)
        begin = time.perf_counter()
        victim.kill()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert 1 <= len(failed) <= 16  # rows of 4, in a batch of 32 and perhaps one that was put ahead
        assert all(isinstance(error, GenerationFailed) and "SIGKILL" in str(error) for error in failed)
        assert [outcome for outcome in outcomes if outcome not in failed] == [before] * (20 - len(failed))
        assert time.perf_counter() - begin < 20
        await until(lambda: [one.pid for one in processes()] not in ([], [victim.pid]))
        assert await asyncio.gather(*(bodies(engine, seed=7, n=4) for _ in range(20))) == [before] * 20

    asyncio.run(scenario())


def test_a_request_that_kills_its_process_again_and_again_harms_nobody_else(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        for _ in range(3):
            deadly = job(label=DEADLY)
            one.submit(deadly)
            with pytest.raises(GenerationFailed, match="exit code 3"):
                await deadly.done
            harmless = job(label=0)
            one.submit(harmless)  # waits until another process is ready
            await harmless.done
            assert harmless.media[0].type == "image/png"

    with scheduled(spec(tiny_model(tmp_path), ODD)) as one:
        asyncio.run(scenario(one))


def test_an_answer_that_cannot_travel_fails_alone(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        jobs = [job(label=0), job(label=UNSENDABLE), job(label=0)]
        for each in jobs:
            one.submit(each)
        await asyncio.gather(*(each.done for each in jobs), return_exceptions=True)
        with pytest.raises(GenerationFailed, match=r"render\(\) raised"):
            await jobs[1].done
        assert jobs[0].media[0].body == jobs[2].media[0].body

    with scheduled(spec(tiny_model(tmp_path), ODD)) as one:
        asyncio.run(scenario(one))


def test_a_body_that_cannot_travel_fails_alone(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        jobs = [job(label=0), job(label=lambda: 0), job(label=0)]
        for each in jobs:
            one.submit(each)  # they go out together
        await asyncio.gather(*(each.done for each in jobs), return_exceptions=True)
        with pytest.raises(GenerationFailed, match=r"put\(\) raised"):
            await jobs[1].done
        assert jobs[0].media[0].body == jobs[2].media[0].body

    with scheduled(spec(tiny_model(tmp_path))) as one:
        asyncio.run(scenario(one))


def test_answers_larger_than_a_sockets_buffer_come_whole(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        jobs = [job(label=LARGE) for _ in range(6)]
        for each in jobs:
            one.submit(each)
        await asyncio.gather(*(each.done for each in jobs))
        assert [len(each.media[0].body) for each in jobs] == [LARGE_BYTES] * 6

    with scheduled(spec(tiny_model(tmp_path), ODD)) as one:
        asyncio.run(scenario(one))


def test_a_batch_that_does_not_end_is_ended_with_its_process(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        endless = job(label=ENDLESS)
        one.submit(endless)
        with pytest.raises(GenerationFailed, match="SIGKILL"):
            await endless.done
        harmless = job(label=0)
        one.submit(harmless)
        await harmless.done

    with scheduled(spec(tiny_model(tmp_path), ODD, batch_timeout_s=0.5)) as one:
        asyncio.run(scenario(one))


def test_nothing_is_started_after_the_end(tmp_path: Path):
    async def scenario(one: Scheduler) -> None:
        for _ in range(2):  # the second death has a back-off
            deadly = job(label=DEADLY)
            one.submit(deadly)
            with pytest.raises(GenerationFailed):
                await deadly.done
        one.close()
        await asyncio.sleep(0.3)
        assert processes() == []

    lane = ProcessLane(spec(tiny_model(tmp_path), ODD))
    asyncio.run(scenario(Scheduler([lane], max_batch=8, queue_rows=9)))


def test_no_process_outlives_its_engine(isolated: Settings):
    engine = Engine.start(isolated, only="tiny")
    started = processes()
    engine.close()

    assert len(started) == 1
    assert not any(one.is_running() for one in started)


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path, models_dir: Path):
    script = (
        "import os, signal\nfrom brigantine.engine import Engine\nfrom brigantine.settings import Settings\n"
        "engine = Engine.start(Settings(isolate=('image',)), only='tiny')\n"
        "print(engine.registry.models['tiny'].loaded._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    said = tmp_path / "pid"
    with said.open("w") as output:  # no pipe, whose end the process would keep open
        environment = os.environ | {"BRIGANTINE_MODELS_DIR": str(models_dir)}
        subprocess.run(
            [sys.executable, "-c", script], env=environment, stdout=output, timeout=60, check=False
        )
    pid = int(said.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                break
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)


def test_a_model_that_has_been_replaced_is_not_served_under_the_old_digest(tmp_path: Path):
    other = spec(tiny_model(tmp_path))._replace(digest="0" * 64)

    with pytest.raises(NotReady, match="the model has been replaced since the service started"):
        ProcessLane(other)
    assert processes() == []
