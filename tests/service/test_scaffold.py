"""`brigantine plugins new`: what it writes is a plugin that keeps the contract, under any name."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from brigantine import Model, Session
from brigantine.contract import violations
from brigantine.errors import BadParams, BrigantineError, SettingsInvalid
from brigantine.scaffold import new
from brigantine.warmup import warm_up

from tests.projects import CHIME

ROOT = Path(__file__).parents[2]
NAMES = {"chime": "Chime", "night-sky": "NightSky", "none": "None", "x_2-go": "X2Go"}


def files(project: Path) -> dict[str, bytes]:
    """Every file below `project`, but not what running it leaves behind."""
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not re.search(r"__pycache__|\.pytest_cache|\.ruff_cache", str(path))
    }


def python(*command: str, source: Path, cwd: Path) -> None:
    known = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": known, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_example_is_what_new_chime_writes(tmp_path: Path):
    project = new("chime", tmp_path)

    assert project == tmp_path / "brigantine-chime"
    assert files(project) == files(CHIME)
    assert os.listdir(tmp_path) == ["brigantine-chime"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_of_any_name_keeps_the_contract_and_serves(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    project = new(name, tmp_path)
    package = f"brigantine_{name.replace('-', '_')}"
    monkeypatch.syspath_prepend(project / "src")
    plugin = getattr(importlib.import_module(package), f"{NAMES[name]}Plugin")
    monkeypatch.delitem(sys.modules, package)
    monkeypatch.delitem(sys.modules, f"{package}.plugin")

    assert violations(plugin, name) == []
    model = Model.open(project / "src" / package / "models" / name)
    assert (model.name, model.manifest.plugin) == (name, name)
    facts = warm_up(plugin(model, Session.open(model)), max_batch=16)
    assert (facts.invariant, facts.tried_batch) == (True, 16)


def test_the_project_passes_its_own_tests(tmp_path: Path):
    project = new("night-sky", tmp_path)

    python("-m", "pytest", "-q", "-p", "no:cacheprovider", source=project / "src", cwd=project)


def test_its_tests_outlive_another_length_and_another_rate(tmp_path: Path):
    project = new("night-sky", tmp_path)
    plugin, builder = project / "src" / "brigantine_night_sky" / "plugin.py", project / "build_model.py"
    builder.write_text(
        builder.read_text().replace("batch, 16000]", "batch, 12000]").replace("end = {16000.0}", "end = {12000.0}")
        .replace("rate = {16000.0}", "rate = {24000.0}")
    )  # fmt: skip
    plugin.write_text(plugin.read_text().replace("16_000", "24_000"))

    python("build_model.py", source=project / "src", cwd=project)
    python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "loudest", source=project / "src", cwd=project
    )


@pytest.mark.parametrize(
    ("name", "plural"), [("box", "boxes"), ("torch", "torches"), ("night-sky", "night-skys")]
)
def test_its_readme_has_the_word_of_its_route(tmp_path: Path, name: str, plural: str):
    assert f"/v1/{plural}/generations" in (new(name, tmp_path) / "README.md").read_text()


def test_the_model_is_what_its_builder_writes(tmp_path: Path):
    project = new("night-sky", tmp_path)
    before = files(project)
    folder = project / "src" / "brigantine_night_sky" / "models" / "night-sky"
    shutil.rmtree(folder)
    folder.mkdir()

    python("build_model.py", source=project / "src", cwd=project)

    assert files(project) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "NAME: expected a-z and 0-9, .*: chime or night-sky, say, got ''"),
        ("Chime", "got 'Chime'"),
        ("9lives", "got '9lives'"),
        ("a--b", "got 'a--b'"),
        ("ends-", "got 'ends-'"),
        ("../up", r"got '\.\./up'"),
        ("new\n", r"got 'new\\n'"),
        ("x" * 63, "at most 61"),
        (
            "image",
            "expected one that no installed plugin has, got 'image', which brigantine offers; choose another",
        ),
        ("model", "expected one whose route is free, got 'model', but /v1/models is a route of the service"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(name: str, said: str, tmp_path: Path):
    with pytest.raises(BadParams, match=said):
        new(name, tmp_path)

    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    (tmp_path / "brigantine-chime").mkdir()
    (tmp_path / "brigantine-chime" / "mine.txt").write_text("mine")

    with pytest.raises(BadParams, match=r"NAME: .* got 'chime': .*/brigantine-chime exists; move it away"):
        new("chime", tmp_path)

    assert files(tmp_path) == {"brigantine-chime/mine.txt": b"mine"}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    with pytest.raises(
        SettingsInvalid, match=r"nowhere: expected a folder to write brigantine-chime into, got 'No such"
    ):
        new("chime", tmp_path / "nowhere")


def test_nothing_is_left_of_a_project_that_cannot_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(BrigantineError, match="got 'No space left on device'"):
        new("chime", tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_plugin_is_under_30_lines_of_code():
    source = (CHIME / "src" / "brigantine_chime" / "plugin.py").read_text()

    assert len(ast.unparse(_without_docstrings(ast.parse(source))).split("\n")) < 30
    assert len([line for line in source.splitlines() if line.strip()]) < 30


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


@pytest.mark.parametrize("page", ["docs/03-plugin.md", "plugins/README.md"])
def test_the_pages_show_the_plugin_as_it_is_written(page: str):
    source = (CHIME / "src" / "brigantine_chime" / "plugin.py").read_text()

    assert f"```python\n{source}```" in (ROOT / page).read_text()
