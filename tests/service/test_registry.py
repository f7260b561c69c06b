"""Plugins are real distributions on the path, read by the real importlib.metadata."""

import textwrap
from pathlib import Path

import pytest
from brigantine.errors import ModelNotFound, ModelRejected, NotFound, NotReady, PluginInvalid
from brigantine.registry import Registry
from brigantine.settings import Settings

from tests import plugins_dir
from tests.tiny import tiny_model

GOOD = plugins_dir.GOOD.replace('"blot"', '"image"')


def install(
    folder: Path, source: str, entry: str = "ink = ink_plugin:Ink", distribution: str = "ink"
) -> None:
    """Put a module and its distribution's metadata into `folder`."""
    module = entry.partition("=")[2].partition(":")[0].strip()
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[brigantine.plugins]\n{entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, as site-packages is."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("ink_plugin", "other_plugin"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def load(models_dir: Path, **options: object) -> Registry:
    return Registry.load(Settings.model_validate({"models_dir": models_dir, **options}), only="inky")


@pytest.fixture
def inky(tmp_path: Path) -> Path:
    """A folder with one model, `inky`, for the plugin `ink`."""
    tiny_model(tmp_path / "models", "inky", plugin="ink")
    return tmp_path / "models"


def test_an_installed_plugin_is_found_and_serves_its_model(site: Path, inky: Path):
    install(site, GOOD)

    registry = load(inky)

    record = registry.plugins["ink"]
    assert (record.state, record.origin.distribution, record.origin.version) == ("serving", "ink", "1.2")
    assert registry.find("inky").plugin is not None
    assert registry.plugins["image"].state == "serving"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'; install what provides it"),
        ("class Ink(", "SyntaxError"),
        ("Ink = 3", "expected a subclass of brigantine.Plugin, got 3"),
        (
            GOOD.replace('name = "ink"', 'name = "pen"'),
            "Ink.name: expected 'ink', as its entry point or file, got 'pen'; make them equal",
        ),
        (
            GOOD.replace('content = "image"', "pass"),
            "Ink.content: expected 1 to 63 of a-z, 0-9, _ and -, got None",
        ),
        (GOOD.replace("params = InkParams", "params = dict"), "expected a subclass of brigantine.Params"),
        (
            GOOD.replace('Field(0, ge=0, le=2, description="Which.")', "0"),
            "InkParams.label: expected a description, got none",
        ),
        (GOOD.replace("Field(0,", "Field("), "InkParams.label: expected a default, got none"),
        (
            GOOD.replace("label: int", "seed: int"),
            "InkParams.seed: expected a name of its own, got one of the host's",
        ),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_rejected_and_the_others_serve(
    site: Path, inky: Path, source: str, reason: str
):
    install(site, source)

    registry = load(inky)

    assert registry.plugins["ink"].state == "rejected"
    assert reason in registry.plugins["ink"].reason
    assert registry.plugins["image"].state == "serving"
    with pytest.raises(NotReady, match="its plugin 'ink' is rejected"):
        registry.find("inky")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("rng.standard_normal(4, dtype=np.float32)", "np.zeros(3, np.float32)"), "z"),
        (('png(row["image"])', "None"), r"render\(\): expected Media"),
        (
            ('types = ("image/png",)', 'types = ("image/webp",)'),
            r"render\(\): expected Media of the type asked for, image/webp, got image/png",
        ),
        (
            ("def render", "def load(self): raise ValueError('no ink')\n\n        def render"),
            "ValueError: no ink",
        ),
    ],
)
def test_a_model_that_fails_its_warm_up_is_rejected_with_the_reason(
    site: Path, inky: Path, change: tuple[str, str], reason: str
):
    install(site, GOOD.replace(*change))

    with pytest.raises(NotReady, match=rf"model 'inky' is not served: .*{reason}"):
        load(inky).find("inky")


def test_two_plugins_of_one_name_are_both_named(site: Path, inky: Path):
    install(site, GOOD)
    install(site, GOOD, "ink = other_plugin:Ink", distribution="inkwell")

    record = load(inky).plugins["ink"]

    assert record.state == "rejected"
    assert "ink and inkwell" in record.reason or "inkwell and ink" in record.reason


def test_strict_refuses_to_start(site: Path, inky: Path):
    install(site, "Ink = 3")

    with pytest.raises(PluginInvalid, match=r"ink: ink: expected a subclass of brigantine\.Plugin, got 3"):
        load(inky, strict=True)


def test_a_damaged_model_is_rejected_and_the_others_serve(models_dir: Path):
    bad = tiny_model(models_dir, "bad")
    (bad / "model.onnx").write_bytes(b"damaged")

    registry = Registry.load(Settings(models_dir=models_dir))

    assert registry.models["tiny"].state == "serving"
    assert registry.models["bad"].plugin_name == "image"
    with pytest.raises(NotReady, match=r"model 'bad' is not served: .*expected sha256"):
        registry.find("bad")


def test_a_plugin_without_a_model_is_idle_and_no_reason_not_to_start(site: Path, tmp_path: Path):
    install(site, GOOD)

    registry = Registry.load(Settings(plugins_allow=("image", "ink"), strict=True))

    record = registry.plugins["ink"]
    assert record.state == "idle"
    assert record.reason.startswith('has no model: put one whose manifest has "plugin": "ink" into ')
    assert str(site / "models") in record.reason
    assert (registry.plugins["image"].state, registry.plugins["image"].reason) == ("serving", "")


def test_the_log_names_what_was_rejected(site: Path, inky: Path, caplog: pytest.LogCaptureFixture):
    install(site, "Ink = 3")

    load(inky)

    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("plugin 'ink' rejected: ink: ink: expected a subclass") for line in said)
    assert any(line.startswith("model 'inky' rejected: its plugin 'ink' is rejected") for line in said)


def test_content_that_nobody_makes_is_told_who_would_have(site: Path, inky: Path):
    install(site, "Ink = 3")
    registry = load(inky)

    with pytest.raises(NotFound, match=r"no plugin in service makes 'imaeges' \(did you mean images\?\)"):
        registry.content("imaeges")
    with pytest.raises(
        NotFound, match=r"the plugin 'ink' is rejected: ink: ink: expected a subclass.*; expected one of /v1/"
    ):
        registry.content("inks")
    with pytest.raises(
        NotFound, match="not in service are the plugins ink, see /v1/plugins; expected one of /v1/"
    ):
        registry.content("telepathies")


def test_content_whose_models_were_all_rejected_is_told_why(site: Path, inky: Path):
    install(
        site,
        plugins_dir.GOOD.replace('"blot"', '"ink"')
        + "        def load(self):\n            raise ValueError('dry')",
    )
    registry = load(inky)

    assert registry.content("inks") == "ink"
    with pytest.raises(
        ModelNotFound, match=r"the plugin 'ink' is rejected: inky: ValueError: dry \(ink_plugin.py:21\)"
    ):
        registry.default("ink", "")


def test_a_model_without_its_plugin_says_so(tmp_path: Path):
    tiny_model(tmp_path, "alien", plugin="telepathy")

    registry = Registry.load(Settings(models_dir=tmp_path), only="alien")

    assert "needs the plugin 'telepathy'; installed are image" in registry.models["alien"].reason


def test_the_default_model_is_the_preferred_one_or_the_first(tmp_path: Path):
    tiny_model(tmp_path, "a-first")
    tiny_model(tmp_path, "zz-last")
    registry = Registry.load(Settings(models_dir=tmp_path))

    assert registry.default("image", "") == "a-first"
    assert registry.default("image", "zz-last") == "zz-last"
    assert registry.default("image", "nowhere") == "a-first"
    with pytest.raises(ModelNotFound, match="no model that makes smell"):
        registry.default("smell", "")


def test_no_other_model_answers_for_a_default_that_was_rejected(models_dir: Path):
    (tiny_model(models_dir, "bad") / "model.onnx").write_bytes(b"damaged")
    registry = Registry.load(Settings(models_dir=models_dir))

    with pytest.raises(ModelRejected, match=r"model 'bad' is not served: .*expected sha256"):
        registry.default("image", "bad")
    with pytest.raises(ModelNotFound, match="no model that makes smell"):
        registry.default("smell", "bad")
    (models_dir / "bad" / "manifest.json").write_text("{")
    with pytest.raises(ModelRejected, match="model 'bad' is not served"):
        Registry.load(Settings(models_dir=models_dir)).default("image", "bad")
