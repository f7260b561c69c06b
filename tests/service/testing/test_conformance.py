"""pytest as an author runs it: in a process of its own, on one line of theirs."""

import subprocess
import sys
from pathlib import Path

import pytest
from brigantine.testing import RULES, conformance

from tests.service.testing.chimes import Chime, Rhyme, chime_model

ROOT = Path(__file__).parents[3]

test_rhyme = conformance(Rhyme, lambda: chime_model(_folder()), calls=100, patience_s=4)


def _folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp())


def run(folder: Path, test: str) -> str:
    """What pytest says of a file with `test`."""
    (folder / "test_theirs.py").write_text(test)
    (folder / "conftest.py").write_text("from brigantine.testing.pytest_plugin import generate\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rfs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        str(folder),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_one_line_is_a_test_for_each_rule_and_says_what_broke(tmp_path: Path):
    model = chime_model(tmp_path)
    said = run(
        tmp_path,
        "from brigantine.testing import conformance\n"
        "from tests.service.testing.faulty_rows import Averaging, Unloadable\n"
        f"test_averaging = conformance(Averaging, {str(model)!r}, name='chime', calls=50, patience_s=1)\n"
        f"test_unloadable = conformance(Unloadable, {str(model)!r}, name='chime', calls=50, patience_s=1)\n",
    )
    summary = said.splitlines()[-1]

    assert "::test_averaging[batch-of-many]" in said
    assert "::test_unloadable[load]" in said
    assert (
        "batch-of-many: Averaging: expected the same bytes for a row, alone and in a batch, got others"
        in said
    )
    assert "waits for what another rule finds missing" in said
    assert "2 failed" in summary
    assert sum(int(word) for word in summary.split() if word.isdigit()) == 2 * len(RULES)


def test_the_fixture_makes_requests_as_the_service_does(tmp_path: Path):
    model = chime_model(tmp_path)
    said = run(
        tmp_path,
        "import pytest\n"
        "from brigantine import BadParams\n"
        "from tests.service.testing.chimes import Chime\n"
        f"MODEL = {str(model)!r}\n"
        "def test_three(generate):\n"
        "    three = generate(Chime, MODEL, n=3, seed=7)\n"
        "    assert len({media.body for media in three}) == 3\n"
        "    assert generate(Chime, MODEL, seed=7) == three[:1]\n"
        "def test_type(generate):\n"
        "    assert generate(Chime, MODEL, 'text/plain')[0].type.startswith('text/plain')\n"
        "def test_refused(generate):\n"
        "    with pytest.raises(BadParams, match='pitch: expected less than or equal to 20, got 21'):\n"
        "        generate(Chime, MODEL, pitch=21)\n",
    )

    assert "3 passed" in said.splitlines()[-1], said


def test_without_pytest_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pytest", None)

    with pytest.raises(ImportError, match=r"pip install 'brigantine\[testing\]'"):
        conformance(Chime, "nowhere")


def test_importing_the_kit_costs_neither_pytest_nor_onnx_nor_bentoml():
    heavy = "pytest", "onnx", "bentoml", "torch", "onnxruntime", "starlette", "prometheus_client"
    code = (
        f"import sys, brigantine.testing; sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
