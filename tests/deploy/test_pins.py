"""What the images install can be had, for each Python that is supported, and constraints.txt pins all of it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import BIN

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^([\w.-]+==[\w.+]+)", re.M)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", [(), ("--extra", "gpu")], ids=["cpu", "gpu"])
def test_every_package_is_pinned_and_there_is_a_wheel_of_it(extra: tuple[str, ...], python: str):
    resolved = subprocess.run(
        [
            BIN / "uv", "pip", "compile", "pyproject.toml", *extra, "--constraint", "constraints.txt",
            "--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--only-binary", ":all:",
            "--no-header", "--no-annotate", "--quiet",
        ],
        cwd=ROOT, env=os.environ | {"UV_PYTHON_DOWNLOADS": "never"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert resolved.returncode == 0, resolved.stderr
    packages = set(PINNED.findall(resolved.stdout))

    assert any(one.startswith("onnxruntime-gpu==") for one in packages) == bool(extra)
    assert packages <= set(PINNED.findall((ROOT / "constraints.txt").read_text()))
