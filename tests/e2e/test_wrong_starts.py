"""Starts that must not happen: each ends within seconds, in one line that names all that is wrong."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.server import BIN, Server, free_port
from tests.slack import SLACK
from tests.tiny import tiny_model

OURS = "brigantine serve --host 127.0.0.1"
PLAIN = "bentoml serve brigantine.app:Brigantine --host 127.0.0.1"
MNIST = Path(__file__).parents[2] / "plugins" / "brigantine_image" / "models" / "mnist"


class Wrong(NamedTuple):
    """A start: its settings, and what its message must have."""

    env: dict[str, str]
    named: tuple[str, ...]


def damaged(folder: Path) -> Wrong:
    """A copy of the default model with one byte changed."""
    graph = Path(shutil.copytree(MNIST, folder / "models" / "mnist")) / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    return Wrong({"BRIGANTINE_MODELS_DIR": str(folder / "models")}, ("model.onnx: expected sha256",))


def orphaned(folder: Path) -> Wrong:
    """A model whose plugin is not installed, where everything must be served."""
    tiny_model(folder / "models", "orphan", plugin="nowhere")
    env = {"BRIGANTINE_MODELS_DIR": str(folder / "models"), "BRIGANTINE_STRICT": "1"}
    return Wrong(env, ("orphan needs the plugin 'nowhere'",))


STARTS: dict[str, Callable[[Path], Wrong]] = {
    "an unknown setting": lambda _: Wrong(
        {"BRIGANTINE_THREAD": "2"}, ("BRIGANTINE_THREAD: no such setting; did you mean BRIGANTINE_THREADS?",)
    ),
    "a bad value": lambda _: Wrong(
        {"BRIGANTINE_DRAIN_SECONDS": "soon"}, ("BRIGANTINE_DRAIN_SECONDS: ", "got 'soon'")
    ),
    "a folder that is missing": lambda _: Wrong(
        {"BRIGANTINE_PLUGINS_DIR": "/nowhere"}, ("PLUGINS_DIR: expected a folder, got /nowhere; make it",)
    ),
    "a model that is missing": lambda _: Wrong(
        {"BRIGANTINE_DEFAULT_MODEL": "nine"}, ("model 'nine': expected one of mnist, shakespeare",)
    ),
    "the default model damaged": damaged,
    "a plugin that is missing": orphaned,
    "no GPU, and one required": lambda _: Wrong(
        {"BRIGANTINE_REQUIRE_GPU": "1", "CUDA_VISIBLE_DEVICES": ""}, ("a GPU is required, but ONNX Runtime",)
    ),
    "several at once": lambda _: Wrong(
        {
            "BRIGANTINE_WORKER": "2",
            "BRIGANTINE_DEVICE": "tpu",
            "BRIGANTINE_MODELS_DIR": "/nowhere",
            "BRIGANTINE_PLUGINS_DIR": "/nothing",
        },
        ("BRIGANTINE_WORKER: no such", "DEVICE: ", "got /nowhere", "got /nothing"),
    ),
}


def check(command: str, folder: Path, wrong: Wrong) -> None:
    """Start the service as it must not be, wait for its end, and read what it says."""
    home = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    program, *arguments = command.split()
    begin = time.perf_counter()
    ended = subprocess.run(
        [BIN / program, *arguments, *([] if "--port" in arguments else ["--port", str(free_port())])],
        env=os.environ | home | wrong.env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60 * SLACK,
        check=False,
    )
    took_s = time.perf_counter() - begin
    said = [line for line in ended.stderr.splitlines() if line]

    assert ended.returncode == 1
    assert took_s < 10 * SLACK
    assert len(said) == 1 and re.match(r"\w+: ", said[0]), ended.stderr
    for one in wrong.named:
        assert said[0].count(one) == 1, said[0]


@pytest.mark.parametrize("command", [OURS, PLAIN], ids=["ours", "bentoml"])
@pytest.mark.parametrize("wrong", STARTS)
def test_a_wrong_start_ends_in_one_line(command: str, wrong: str, tmp_path: Path):
    check(command, tmp_path, STARTS[wrong](tmp_path))


@pytest.mark.parametrize("command", [OURS, PLAIN], ids=["ours", "bentoml"])
def test_an_occupied_port_is_one(command: str, server: Server, tmp_path: Path):
    port = server.url.rpartition(":")[2]

    check(f"{command} --port {port}", tmp_path, Wrong({}, (f"127.0.0.1:{port}: expected an address",)))


@pytest.mark.parametrize("command", [OURS, PLAIN], ids=["ours", "bentoml"])
def test_an_occupied_port_is_named_beside_all_else(command: str, server: Server, tmp_path: Path):
    port = server.url.rpartition(":")[2]
    named = f"127.0.0.1:{port}: expected an address", "model 'nine'"

    check(f"{command} --port {port}", tmp_path, Wrong({"BRIGANTINE_DEFAULT_MODEL": "nine"}, named))


def test_a_port_that_is_none_is_one(tmp_path: Path):
    check(f"{PLAIN} --port 99999", tmp_path, Wrong({}, ("127.0.0.1:99999: expected an address",)))

    ours = subprocess.run([BIN / "brigantine", "serve", "--port", "99999"], capture_output=True, check=False)
    assert ours.returncode == 2
    assert b"65535" in ours.stderr


def test_a_home_that_cannot_be_written_to_is_one(tmp_path: Path):
    """BentoML itself ends in a traceback then, before it has looked at any service."""
    env = {"BENTOML_HOME": "/proc/nowhere", "BRIGANTINE_THREAD": "1"}

    check(
        OURS, tmp_path, Wrong(env, ("BENTOML_HOME: expected a folder that can be", "BRIGANTINE_THREAD: no"))
    )
