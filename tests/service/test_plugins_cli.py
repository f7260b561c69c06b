"""`brigantine plugins`, in this process; `tests/e2e` runs it as its users do."""

import shutil
from pathlib import Path

import pytest
from brigantine import cli
from brigantine.errors import BadParams, PluginInvalid, PluginNotFound
from brigantine.scaffold import new
from typer.testing import CliRunner

from tests.plugins_dir import GOOD, plugin_file
from tests.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins with `ink.py` and its model `blots`."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    plugin_file(folder, "ink")
    tiny_model(folder / "models", "blots", plugin="ink")
    monkeypatch.setenv("BRIGANTINE_PLUGINS_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def run(*arguments: str, exit_code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, ["plugins", *arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_list_names_what_serves_and_why_not(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    plugin_file(folder, "lost", "import no_such_module")
    plugin_file(folder, "pen")

    lines = run("list").splitlines()

    reason = f"lost is rejected: {folder / 'lost.py'}: No module named 'no_such_module'; install what"
    assert any(line.startswith(reason) for line in lines), lines  # on one line, whatever the terminal's width
    assert any(line.startswith("pen is idle: has no model: put one") for line in lines)
    assert not any(line.startswith("ink is ") for line in lines)


def test_a_good_plugin_keeps_the_contract_by_name_and_by_file(folder: Path):
    assert "ink keeps the contract with blots" in run("check", "ink")
    assert "ink keeps the contract with blots" in run("check", str(folder / "ink.py"))


def test_a_bad_one_is_told_its_faults(folder: Path):
    source = GOOD.replace('png(row["image"])', 'Media(media_type, b"no PNG")')
    plugin_file(folder, "ink", source.replace("import Params", "import Media, Params"))

    said = run("check", "ink", exit_code=1)

    assert "blots: media-bytes: " in said


def test_a_plugin_without_a_model_cannot_be_checked(folder: Path):
    plugin_file(folder, "pen")

    with pytest.raises(
        PluginInvalid, match="with, found models/blots, whose manifest says plugin 'ink', not 'pen'"
    ):
        run("check", "pen")
    with pytest.raises(PluginInvalid, match="expected one of its models, blots, got --model other"):
        run("check", "ink", "--model", "other")
    (folder / "models" / "blots" / "manifest.json").write_text("{")
    with pytest.raises(
        PluginInvalid, match="found models/blots, whose manifest cannot be read; put one whose"
    ):
        run("check", str(folder / "pen.py"))
    shutil.rmtree(folder / "models")
    with pytest.raises(
        PluginInvalid, match=r'found none; put one whose manifest has "plugin": "pen" into .*/models'
    ):
        run("check", str(folder / "pen.py"))


def test_what_is_wrong_with_its_class_is_said_without_a_model_too(tmp_path: Path):
    file = plugin_file(tmp_path, "pen", GOOD.replace("ge=0, le=2, ", "").replace('"image/png"', '"PNG"'))

    done = CliRunner().invoke(cli.app, ["plugins", "check", str(file)])

    assert "pen: types: Ink.types: expected MIME types" in done.output
    assert "pen: bounds: InkParams.label: expected bounds" in done.output
    assert "expected a model to check it with, found none" in str(done.exception)


def test_a_fault_of_the_class_is_said_once(folder: Path):
    file = plugin_file(folder, "ink", GOOD.replace("ge=0, le=2, ", ""))
    tiny_model(folder / "models", "clots", plugin="ink")

    assert run("check", str(file), exit_code=1).count("expected bounds") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module", "No module named 'no_such_module'; install what provides it"),
        ("import math\nx = 1 +\n", r"SyntaxError: invalid syntax \(ink.py:2, 'x = 1 \+'\); mend that line"),
        ("import math\nmath.tau.beta", r"AttributeError: .* \(ink.py:2\); mend that line"),
        ("raise SystemExit(3)", "a plugin must not end the service"),
        ("class Ink: pass", "expected one Plugin with name = 'ink', got no class derived"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path: Path, source: str, said: str):
    file = tmp_path / "ink.py"
    file.write_text(source)

    with pytest.raises(PluginInvalid, match=said):
        run("check", str(file))


def test_the_folder_decides_what_a_plugin_there_is_called(folder: Path, tmp_path: Path):
    copy = (folder / "ink.py").rename(folder / "pot.py")

    assert "pot: name: " not in run("check", str(shutil.copytree(folder, tmp_path / "elsewhere") / "pot.py"))
    assert "name: Ink.name: expected 'pot', as its entry point or file, got 'ink'" in run(
        "check", str(copy), exit_code=1
    )


def test_what_is_nothing_is_told_what_there_is(folder: Path, tmp_path: Path):
    with pytest.raises(PluginNotFound, match="'quill': expected a file, a package, or one of image, ink"):
        run("check", "quill")
    with pytest.raises(
        PluginNotFound, match=r"expected a file, or a package, got a folder; name one in it: .*ink\.py"
    ):
        run("check", str(folder))
    project = new("quill", tmp_path)
    with pytest.raises(PluginNotFound, match=r"name one in it: .*/src/brigantine_quill"):
        run("check", str(project))


@pytest.mark.usefixtures("on_cpu")
def test_a_request_is_traced_stage_by_stage(folder: Path):
    said = run("trace", "blots", '{"label": 1, "n": 2, "seed": 7}')

    for part in (
        "ink with blots on cpu",
        "2 x z float32[4], label int64[]",
        "2 of 2 done",
        "image uint8[8, 8, 1]",
    ):
        assert part in said
    assert said.count("image/png, ") == 2
    assert "render, seed 7 " in said


def test_a_request_that_is_wrong_is_refused(folder: Path):
    with pytest.raises(BadParams, match="label: expected"):
        run("trace", "blots", '{"label": 7}')
    with pytest.raises(BadParams, match="BODY: expected a JSON object, got 'seven'"):
        run("trace", "blots", "seven")
    with pytest.raises(BadParams, match="BODY: expected a JSON object"):
        run("trace", "blots", "[]")
