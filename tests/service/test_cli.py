"""The command line, in this process; `tests/e2e` runs it as its users do."""

from pathlib import Path

import pytest
from brigantine import cli
from PIL import Image
from typer.testing import CliRunner

from tests.plugins_dir import GOOD, plugin_file
from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def tiny_store(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", str(models_dir))


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.argv", ["brigantine", *arguments])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    return capsys.readouterr().err


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".webp", "WEBP"), (".jpg", "JPEG")])
def test_one_image_has_the_type_of_its_file(tmp_path: Path, suffix: str, kind: str):
    out = tmp_path / f"one{suffix}"

    assert "seed 7" in run("generate", "--model", "tiny", "--label", "1", "--seed", "7", "--out", str(out))
    with Image.open(out) as image:
        assert image.format == kind


def test_many_images_go_into_one_grid(tmp_path: Path):
    run("generate", "--model", "tiny", "--n", "5", "--out", str(tmp_path / "grid.png"))

    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (3 * 8, 2 * 8)


@pytest.mark.parametrize(("name", "kind"), [("grid.webp", "WEBP"), ("grid.jpg", "JPEG"), ("grid", "PNG")])
def test_a_grid_has_the_type_of_its_file(tmp_path: Path, name: str, kind: str):
    arguments = ("generate", "--model", "tiny", "--n", "4", "--seed", "7", "--out")
    run(*arguments, str(tmp_path / name))
    run(*arguments, str(tmp_path / "exact.png"))

    with Image.open(tmp_path / name) as grid, Image.open(tmp_path / "exact.png") as exact:
        assert (grid.format, grid.size) == (kind, (2 * 8, 2 * 8))
        if kind != "JPEG":  # the others are lossless
            assert grid.convert("L").tobytes() == exact.convert("L").tobytes()


@pytest.mark.parametrize(
    ("model", "name", "begin"), [("tiny", "out.png", b"\x89PNG"), ("tones", "out.wav", b"RIFF")]
)
def test_without_a_file_it_is_called_after_its_type(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, model: str, name: str, begin: bytes
):
    source = GOOD.replace("Plugin, png", "Plugin, wav").replace('"image/png"', '"audio/wav"')
    plugin_file(
        tmp_path,
        "tone",
        source.replace('png(row["image"])', 'wav(row["image"].ravel().astype("int16"), 8000)'),
    )
    tiny_model(models_dir, "tones", plugin="tone")
    monkeypatch.setenv("BRIGANTINE_PLUGINS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert name in run("generate", "--model", model)
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_setting_is_json_or_text(tmp_path: Path):
    for words in ("a two", '"7"', "two 7"):
        run("generate", "--model", "tiny", "--set", f"prompt={words}", "--out", str(tmp_path / "x.png"))


def test_a_model_that_was_rejected_says_why_below_the_table(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    graph = tiny_model(models_dir, "bad") / "model.onnx"
    graph.write_bytes(b"damaged")

    assert f"\nbad is rejected: {graph}: expected sha256 " in run("models", "list")


def test_models_and_plugins_are_listed():
    assert "tiny" in run("models", "list")
    assert "image/png" in run("plugins", "list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--model", "nine"], "model_not_found: model 'nine': expected one of mnist, "),
        (["generate", "--model", "tiny", "--label", "[/x]"], "got '[/x]'"),
        (["generate", "--model", "tiny", "--set", "colour"], "--set: expected key=value, got 'colour'"),
        (
            ["generate", "--model", "tiny", "--out", "nowhere/x.png"],
            "--out: expected a file in a folder that exists",
        ),
        (
            ["generate", "--model", "tiny", "--out", "x.bmp"],
            "--out: expected a name that ends in .png, .webp, .jpg, .gif, or in none, got 'x.bmp'",
        ),
        (
            ["models", "publish", "nowhere", "--name", "x"],
            "nowhere: expected a model's folder, found nothing",
        ),
        (["models", "publish", ".ci", "--name", "x"], "is no model: expected a manifest.json"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    said = refused(*arguments, capsys=capsys, monkeypatch=monkeypatch)

    assert message in said
    assert "Traceback" not in said
