import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from brigantine import store
from brigantine.errors import ModelInvalid, ModelNotFound, SettingsInvalid
from brigantine.model import MANIFEST, sha256_of
from brigantine.store import Store, models_below, publish

from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def bentoml_home(tmp_path: Path) -> Iterator[Path]:
    """An empty model store of BentoML's own kind."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    home = tmp_path / "bentoml"
    (home / "models").mkdir(parents=True)
    with BentoMLContainer.model_store_dir.patch(str(home / "models")):
        yield home


def test_the_shipped_model_is_found_without_any_setting():
    found = Store().find()["mnist"]

    assert found.source == "plugin brigantine_image"
    assert found.open().name == "mnist"


def test_the_folder_of_the_user_comes_first(tmp_path: Path):
    tiny_model(tmp_path / "mine", "mnist")

    assert Store(tmp_path / "mine").find()["mnist"].source == f"folder {tmp_path / 'mine'}"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that anybody may look into, and this process as anybody, for whom file modes count."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("hidden", ["hidden", "hidden/manifest.json", "hidden/model.onnx"])
def test_a_model_that_may_not_be_read_is_found_and_says_so(nobody: Path, hidden: str):
    tiny_model(nobody, "hidden")
    (nobody / hidden).chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)

    [found] = models_below(nobody, "folder")
    with pytest.raises(ModelInvalid, match=r"may read, got 'Permission denied'; chmod -R a\+rX .*hidden"):
        found.open()


def test_a_published_model_is_found_under_its_new_name(tmp_path: Path):
    tag = publish(tiny_model(tmp_path), "my-digits")

    model = Store().get("my-digits").open()
    assert tag.startswith("my-digits:")
    assert (model.name, model.source) == ("my-digits", "bentoml")


def test_a_run_is_published_by_its_model_folder(tmp_path: Path):
    shutil.copytree(tiny_model(tmp_path), tmp_path / "run" / "model")

    publish(tmp_path / "run", "from-run")

    assert Store().get("from-run").open().manifest.plugin == "image"


def test_bentoml_itself_reads_what_was_published(tmp_path: Path):
    import bentoml

    tag = publish(tiny_model(tmp_path), "my-digits")

    model = bentoml.models.get("my-digits:latest")
    assert str(model.tag) == tag
    assert model.info.labels == {"brigantine": "image"}
    assert Path(model.path_of(MANIFEST)).is_file()


def test_publishing_twice_changes_nothing_and_a_new_model_becomes_the_latest(tmp_path: Path):
    first = publish(tiny_model(tmp_path / "a"), "my-digits")
    assert publish(tmp_path / "a" / "tiny", "my-digits") == first

    second = publish(tiny_model(tmp_path / "b", description="better"), "my-digits")
    assert second != first
    assert Store().get("my-digits").open().manifest.description == "better"


def test_a_damaged_model_is_not_published(tmp_path: Path, bentoml_home: Path):
    path = tiny_model(tmp_path)
    (path / "model.onnx").write_bytes(b"not a graph")

    with pytest.raises(ModelInvalid):
        publish(path, "my-digits")
    assert not (bentoml_home / "models" / "my-digits").exists()


def test_a_damaged_copy_in_the_store_is_replaced_by_publishing_again(tmp_path: Path):
    tag = publish(tiny_model(tmp_path), "my-digits")
    graph = Store().get("my-digits").path / "model.onnx"
    body = bytearray(graph.read_bytes())
    body[100] ^= 1
    graph.write_bytes(body)
    with pytest.raises(ModelInvalid, match="publish the model again"):
        Store().get("my-digits").open()

    assert publish(tmp_path / "tiny", "my-digits") == tag
    assert Store().get("my-digits").open().name == "my-digits"


@pytest.mark.parametrize("text", [None, "", "name: my-digits\n", "{", "\udcff"])
def test_an_entry_that_bentoml_cannot_read_is_left_out_until_it_is_published_again(
    tmp_path: Path, text: str | None
):
    tag = publish(tiny_model(tmp_path), "my-digits")
    note = Store().get("my-digits").path / "model.yaml"
    note.unlink()
    if text is not None:
        note.write_text(text, errors="surrogateescape")

    assert "my-digits" not in Store().find()
    assert "mnist" in Store().find()
    assert publish(tmp_path / "tiny", "my-digits") == tag
    assert Store().get("my-digits").open().name == "my-digits"


def test_a_store_on_a_file_system_of_its_own_is_published_to_from_inside(
    tmp_path: Path, bentoml_home: Path, monkeypatch: pytest.MonkeyPatch
):
    assert store._beside(bentoml_home / "models") == bentoml_home
    monkeypatch.setattr(store, "_beside", lambda folder: folder)

    publish(tiny_model(tmp_path), "my-digits")
    assert [path.name for path in (bentoml_home / "models").iterdir()] == ["my-digits"]


def test_a_file_is_no_model(tmp_path: Path):
    with pytest.raises(ModelInvalid, match=r"is no model: expected a manifest\.json"):
        publish(tiny_model(tmp_path) / "model.onnx", "my-digits")


def test_a_failed_publish_leaves_nothing_behind(
    tmp_path: Path, bentoml_home: Path, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copy2", full_disk)
    with pytest.raises(OSError, match="No space"):
        publish(tiny_model(tmp_path), "my-digits")

    assert "my-digits" not in Store().find()
    assert not (bentoml_home / "models" / "my-digits").exists()
    assert [path.name for path in bentoml_home.iterdir()] == ["models"]


@pytest.mark.parametrize("name", ["My Digits", "a-", "-a", "", "x" * 64, "a/b"])
def test_a_name_that_bentoml_could_not_read_is_refused(tmp_path: Path, bentoml_home: Path, name: str):
    with pytest.raises(ModelInvalid, match="--name: expected lower-case letters"):
        publish(tiny_model(tmp_path), name)
    assert not list((bentoml_home / "models").iterdir())


def test_models_of_others_in_bentomls_store_are_not_ours_to_judge(tmp_path: Path):
    import bentoml

    with bentoml.models.create("theirs") as model:
        Path(model.path_of(MANIFEST)).write_text("{}")

    assert "theirs" not in Store().find()


def test_files_in_folders_and_the_card_are_published_too(tmp_path: Path):
    path = tiny_model(tmp_path)
    (path / "vocabulary").mkdir()
    (path / "vocabulary" / "words.txt").write_text("a b c")
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"]["vocabulary/words.txt"] = sha256_of(path / "vocabulary" / "words.txt")
    (path / MANIFEST).write_text(json.dumps(manifest))
    (path / "README.md").write_text("# tiny")

    publish(path, "wordy")

    published = Store().get("wordy").open()
    assert (published.path / "vocabulary" / "words.txt").read_text() == "a b c"
    assert (published.path / "README.md").is_file()


def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(ModelNotFound, match=r"'nine': expected one of .*mnist"):
        Store().get("nine").open()


def test_a_folder_and_its_manifest_must_agree_on_the_name(tmp_path: Path):
    path = tiny_model(tmp_path)
    manifest = json.loads((path / MANIFEST).read_text()) | {"name": "another"}
    (path / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(ModelInvalid, match="the manifest says 'another'"):
        Store(tmp_path).get("tiny").open()


def test_a_models_dir_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(SettingsInvalid, match="BRIGANTINE_MODELS_DIR: expected a folder"):
        Store(tmp_path / "nowhere").find()
