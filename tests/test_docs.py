"""The documentation is true: its blocks run, and it names every setting, metric, error and route.

`bash` and `python` blocks run in order, page by page, against the real server; a `json` block is what the block
before it printed. `sh` blocks set a machine up: of these only the make targets are checked. The server has the plugin
that the pages write; what a page installs, its later blocks can import.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from brigantine import errors
from brigantine.api import admin, chat, completions, generations, native
from brigantine.engine import Engine
from brigantine.errors import BrigantineError
from brigantine.session import RuntimeMissing
from brigantine.settings import Settings

from tests.e2e.server import BIN, Server, serving
from tests.mnist import DATA_DIR, HAVE_MNIST, NO_MNIST
from tests.projects import CHIME, install

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "plugins" / "README.md",
    CHIME / "README.md",
]

SHORTER = {
    # Ten minutes of training and the scores that follow are too long for a test: a few steps, and the export.
    "--budget 10m --out runs/a": "--steps 3 --no-evaluate --out runs/a && "
    "brigantine-train export runs/a --data-dir DATA",
    "--steps 2 --no-evaluate --out runs/words": "--steps 2 --threads 1 --set layers=1 --set batch_windows=2 "
    "--no-evaluate --out runs/words",
    "../shared/data": "DATA",
    # Not into the environment of the tests: the others must not see it.
    "pip install --editable './brigantine-chime[dev]'": "pip install -q --no-deps --target SITE ./brigantine-chime",
}


class Block(NamedTuple):
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.S | re.M)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("docs")
    with serving(home, PYTHONPATH=str(install(CHIME, home / "site"))) as server:
        yield server


def run(block: Block, server: Server, folder: Path) -> str:
    code = block.code.replace("http://localhost:3000", server.url)
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    code = code.replace("DATA", str(DATA_DIR)).replace("SITE", str(folder / "site"))
    command = (
        ["bash", "-euo", "pipefail", "-c", code] if block.language == "bash" else [sys.executable, "-c", code]
    )
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "site"),
    }
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, f"{code}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_runs(page: Path, server: Server, tmp_path: Path):
    for name in (
        "training",
        "service",
        "plugins",
        "pyproject.toml",
        "bentofile.yaml",
        "README.md",
        "LICENSE",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    printed = ""
    for block in blocks(page):
        if "brigantine-train" in block.code and not HAVE_MNIST:
            pytest.skip(NO_MNIST)
        if "curl " in block.code and shutil.which("curl") is None:
            pytest.skip("needs curl; install it with the system's package manager")
        if block.language in ("bash", "python"):
            printed = run(block, server, tmp_path)
        elif block.language == "json":
            assert json.loads(printed) == json.loads(block.code)
        elif block.language == "sh":
            check_make_targets(block.code)


def check_make_targets(code: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", code)) <= targets


def test_no_blank_is_left_to_fill_in():
    for page in PAGES:
        prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)
        assert not re.findall(r"\b[A-Z]+_[A-Z_]+\b", prose), page.name


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


REQUEST = (ROOT / "docs" / "01-request.md").read_text()


def test_every_setting_is_documented_and_none_else():
    written = set(re.findall(r"^\| `(BRIGANTINE_\w+)`", REQUEST, re.M))

    assert written == {f"BRIGANTINE_{name.upper()}" for name in Settings.model_fields}


def test_every_route_is_documented_and_none_else():
    there = {
        route.path for part in (admin, chat, completions, generations, native) for route in part.routes()
    }  # type: ignore[attr-defined]
    written = set(
        re.findall(r"`(?:(?:GET|POST) )?(/[\w/{}.]*)`", REQUEST.split("## Routes")[1].split("```")[0])
    )

    assert written == there - {"/", "/docs/assets/{name}"}


def test_every_metric_is_documented_and_none_else(engine: Engine):
    kept = set(re.findall(r"^# TYPE (\w+)", engine.metrics.exposition()[0].decode(), re.M))
    written = set(re.findall(r"`((?:brigantine|gen_ai)_\w+)`", REQUEST))

    assert written == {name for name in kept if not name.endswith("_created")}


def test_every_error_code_is_documented():
    codes = {RuntimeMissing.code} | {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, BrigantineError)
    }

    assert codes <= set(re.findall(r"`(\w+)`", REQUEST))
