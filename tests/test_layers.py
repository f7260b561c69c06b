"""The rooms and the doors between them."""

import ast
import subprocess
import sys
from pathlib import Path

import brigantine
import brigantine_image
import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("service", "plugins", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "__pycache__" not in path.parts
]


def test_the_import_contracts_hold():
    checked = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("package", ["brigantine", "brigantine_image"])
def test_importing_costs_neither_bentoml_nor_torch_nor_prometheus(package: str):
    heavy = "bentoml", "torch", "onnxruntime", "prometheus_client", "starlette"
    code = f"import sys, {package}; sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, f"import {package} imports {ran.stderr}"


def test_the_service_module_leaves_prometheus_to_the_worker():
    code = "import sys, brigantine.app; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", [brigantine, brigantine_image])
def test_the_public_names_are_exact_and_sorted(module: object):
    names = module.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400, "one noun a file"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long to be read at once"
