"""`brigantine plugins`, in this process; `tests/e2e` runs it as its users do."""

import re
from pathlib import Path

import pytest
from brigantine import cli
from brigantine.errors import BadParams, PluginInvalid, PluginNotFound
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


def test_list_names_what_serves_and_why_not(folder: Path):
    plugin_file(folder, "lost", "import no_such_module")

    said = re.sub(r"[^\w./']", "", run("list"))  # the table breaks long words

    assert "serving" in said
    assert "Nomodulenamed'no_such_module'" in said


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

    with pytest.raises(PluginInvalid, match="pen: expected a model to check it with, found none"):
        run("check", "pen")
    with pytest.raises(PluginInvalid, match="found other"):
        run("check", "ink", "--model", "other")
    with pytest.raises(
        PluginNotFound, match="plugin 'quill': expected a file, a package, or one of image, ink, pen"
    ):
        run("check", "quill")


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
