"""What is in the image, and what is not."""

import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.image.container import IMAGE, engine, inspect
from tests.image.figures import at_most

MEGABYTE = 1e6


def printed(entrypoint: str, *command: str) -> str:
    """By a command in place of the service, without a network."""
    options = ("--rm", "--network=none", "--read-only", "--tmpfs=/tmp", f"--entrypoint={entrypoint}")
    return engine("run", *options, IMAGE, *command).stdout


def test_it_is_small():
    at_most("size of the image with its base", inspect("image", IMAGE)["Size"] / MEGABYTE, 450, "MB")


def test_its_labels_say_what_it_is():
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in inspect("image", IMAGE)["Config"]["Labels"].items()
    }
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )

    assert labels["title"] == "brigantine-cpu"
    assert labels["version"] == version("brigantine")
    assert labels["revision"] == (head.stdout.strip() or "unknown")
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"]
    age = datetime.now(timezone.utc) - datetime.fromisoformat(labels["created"].replace("Z", "+00:00"))
    assert 0 <= age.total_seconds() < 86_400


def test_its_user_is_a_number_and_not_root():
    assert inspect("image", IMAGE)["Config"]["User"] == "1034:1034"
    assert printed("id", "-u") == "1034\n"


def test_nothing_in_it_belongs_to_its_user():
    # Where its user may not look, root's alone is.
    assert printed("sh", "-c", "find / -xdev -not -path '/proc/*' -uid 1034 2>/dev/null || true") == ""


@pytest.mark.parametrize("tool", ["cc", "gcc", "g++", "clang", "tcc", "as", "ld", "nvcc", "make", "cargo"])
def test_no_compiler_is_in_it(tool: str):
    assert printed("sh", "-c", f"command -v {tool} || true") == ""


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxscript", "tensorflow"])
def test_no_package_for_training_is_in_it(package: str):
    code = f"import importlib.util as u; print(u.find_spec({package!r}))"
    assert printed("python", "-c", code) == "None\n"


@pytest.mark.parametrize(
    "module",
    [
        "brigantine.app",
        "brigantine.cli",
        "brigantine_image",
        "brigantine_text",
        "numpy.testing",
        "tokenizers",
    ],
)
def test_what_serving_imports_was_left_in_it(module: str):
    assert (
        printed("python", "-W", "error::ImportWarning", "-c", f"import {module}; print('imported')")
        == "imported\n"
    )


UNCOMPILED = """
import importlib.util, pathlib, sys
import brigantine.app, brigantine_image, brigantine_text, onnxruntime, tokenizers, uvicorn
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None) or ""
    if file.endswith(".py") and not pathlib.Path(importlib.util.cache_from_source(file)).exists():
        print(file)
"""


def test_every_module_is_compiled():
    """Else each start compiles it anew: nothing can be written."""
    assert printed("python", "-c", UNCOMPILED) == ""


def test_its_commands_work():
    listed = printed("brigantine", "models", "list")
    assert "mnist" in listed and "shakespeare" in listed
    assert printed("brigantine", "plugins", "list").count("serving") == 2
    made = printed("brigantine", "generate", "--label", "7", "--seed", "7", "--out", "/tmp/seven.png")
    assert made.startswith("1 from mnist, seed 7")


def test_a_new_plugin_comes_with_its_tests():
    code = "brigantine plugins new chime >/dev/null && ls */tests"
    assert "test_plugin.py" in printed("sh", "-c", f"cd /tmp && {code}")
