"""Plugins in a folder of files, and what the settings leave out."""

import asyncio
import sys
from pathlib import Path

import pytest
from brigantine.discovery import discover, within
from brigantine.engine import Engine
from brigantine.errors import PluginInvalid, SettingsInvalid
from brigantine.registry import Registry
from brigantine.settings import Settings

from tests.plugins_dir import BAD, GOOD, bad_plugins, plugin_file
from tests.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plugins with one good file, `ink.py`, and its model."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    plugin_file(folder, "ink")
    tiny_model(folder / "models", "blots", plugin="ink")
    return folder


def settings(folder: Path, **options: object) -> Settings:
    return Settings.model_validate({"plugins_dir": folder, "load_timeout_s": 20.0, **options})


def test_a_file_is_a_plugin_and_its_models_lie_beside_it(folder: Path):
    engine = Engine.start(settings(folder), only="blots")

    record = engine.registry.plugins["ink"]
    made = asyncio.run(engine.generate("blots", {"label": 1, "seed": 7}))
    engine.close()

    assert (record.state, record.origin.distribution) == ("serving", str(folder / "ink.py"))
    assert made.media[0].type == "image/png"
    assert engine.registry.content("inks") == "ink"


def test_a_package_in_the_folder_brings_its_own_models_and_modules(tmp_path: Path):
    package = tmp_path / "plugins" / "ink"
    package.mkdir(parents=True)
    plugin_file(package, "ink").rename(package / "pot.py")
    (package / "__init__.py").write_text("from .pot import Ink\n")
    tiny_model(package / "models", "blots", plugin="ink")

    registry = Registry.load(settings(tmp_path / "plugins"), only="blots")

    assert registry.find("blots").source == f"folder {package}"


def test_a_process_of_its_own_finds_a_file_again(folder: Path):
    engine = Engine.start(settings(folder, isolate="ink"), only="blots")
    isolated = asyncio.run(engine.generate("blots", {"seed": 7})).media[0].body
    engine.close()
    engine = Engine.start(settings(folder), only="blots")
    assert asyncio.run(engine.generate("blots", {"seed": 7})).media[0].body == isolated
    engine.close()


def test_each_bad_plugin_is_rejected_with_its_own_reason(tmp_path: Path):
    registry = Registry.load(settings(bad_plugins(tmp_path / "plugins"), load_timeout_s=4.0))

    for name, (_, reason) in BAD.items():
        plugin, model = registry.plugins[name], registry.models[name]
        assert (plugin.state, model.state) == ("rejected", "rejected"), name
        assert reason in plugin.reason, name
    for records, ours in ((registry.plugins, "image"), (registry.models, "mnist")):
        serving = {record.name for record in records.values() if record.state == "serving"}
        assert ours in serving and serving.isdisjoint(BAD)


def test_two_of_one_name_are_both_named_and_neither_wins(folder: Path):
    plugin_file(folder, "image")

    record = discover(settings(folder))["image"]

    assert record.state == "rejected"
    assert f"brigantine and {folder / 'image.py'}" in record.reason


def test_what_is_denied_or_not_allowed_is_not_imported(folder: Path):
    plugin_file(folder, "bomb", "raise SystemExit('imported')")

    denied = discover(settings(folder, plugins_deny="bomb, image"))
    allowed = discover(settings(folder, plugins_allow="ink"))
    neither = discover(settings(folder))

    for records in (denied, allowed):
        states = [records[name].state for name in ("bomb", "image", "ink")]
        assert states == ["disabled", "disabled", "serving"]
    assert "raised SystemExit: imported; a plugin must not end the service" in neither["bomb"].reason
    assert "brigantine_plugins_dir.bomb" not in sys.modules


def test_a_name_in_a_list_that_nobody_has_is_rejected(folder: Path):
    record = discover(settings(folder, plugins_allow="ink,pen"))["pen"]

    assert (record.state, record.plugin) == ("rejected", None)
    assert "named in BRIGANTINE_PLUGINS_ALLOW or _DENY, but there is none" in record.reason


def test_a_model_of_a_disabled_plugin_says_so(folder: Path):
    registry = Registry.load(settings(folder, plugins_deny="ink"), only="blots")

    assert (
        registry.models["blots"].reason == "its plugin 'ink' is disabled: left out by BRIGANTINE_PLUGINS_DENY"
    )


def test_one_content_has_one_plural(folder: Path):
    plugin_file(folder, "pen", GOOD.replace('content = "blot"', 'content = "image"; plural = "pictures"'))

    record = discover(settings(folder))["pen"]

    assert "expected ('image', 'images') as those of the plugin image, or others" in record.reason


def test_a_folder_that_is_not_there_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BRIGANTINE_PLUGINS_DIR", str(tmp_path / "nowhere"))

    with pytest.raises(SettingsInvalid, match="BRIGANTINE_PLUGINS_DIR: expected a folder"):
        Settings.read()


def test_what_does_not_end_in_time_is_given_up():
    with pytest.raises(PluginInvalid, match=r"a nap did not end within 0.05 s"):
        within(0.05, "a nap", lambda: __import__("time").sleep(1))
    assert within(5, "nothing", lambda: 3) == 3


def test_a_plugin_that_is_denied_harms_no_other_content_and_no_strict_start(folder: Path):
    registry = Registry.load(settings(folder, plugins_deny="image", strict=True))

    assert registry.default("ink", "mnist") == "blots"
    assert registry.models["mnist"].state == "rejected"


def test_an_entry_point_that_nobody_can_read_is_rejected_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[brigantine.plugins]\nodd = no-module:Odd\n")
    monkeypatch.syspath_prepend(tmp_path)

    registry = Registry.load(Settings())

    assert registry.plugins["odd"].state == "rejected"
    assert registry.models["mnist"].state == "serving"


def test_our_own_plugin_is_not_the_one_that_gives_way(folder: Path):
    plugin_file(folder, "art", GOOD.replace('content = "blot"', 'content = "image"; plural = "arts"'))

    records = discover(settings(folder))

    assert (records["art"].state, records["image"].state) == ("rejected", "serving")
