import json
from pathlib import Path

import pytest
from brigantine.errors import ModelInvalid
from brigantine.model import MANIFEST, Model, sha256_of

from tests.tiny import tiny_model


def test_a_model_is_opened_with_its_manifest(tmp_path: Path):
    model = Model.open(tiny_model(tmp_path))

    assert (model.name, model.manifest.plugin) == ("tiny", "image")
    assert model.graph.is_file()
    assert len(model.digest) == 64


def test_one_altered_byte_is_found(tmp_path: Path):
    path = tiny_model(tmp_path)
    data = bytearray((path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "model.onnx").write_bytes(data)

    with pytest.raises(ModelInvalid, match=r"model\.onnx: expected sha256 .* altered"):
        Model.open(path)


def test_a_missing_file_is_named(tmp_path: Path):
    path = tiny_model(tmp_path)
    (path / "model.onnx").unlink()

    with pytest.raises(ModelInvalid, match=r"model\.onnx: named in manifest\.json, but missing"):
        Model.open(path)


def test_a_folder_without_manifest_is_no_model(tmp_path: Path):
    with pytest.raises(ModelInvalid, match=r"expected a manifest\.json"):
        Model.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"plugin": "No Slug"}, "plugin"), ({"inputs": []}, "inputs"), ({"surprise": 1}, "surprise")],
)
def test_a_wrong_manifest_names_the_field(tmp_path: Path, change: dict[str, object], field: str):
    path = tiny_model(tmp_path)
    manifest = json.loads((path / MANIFEST).read_text()) | change
    (path / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(ModelInvalid, match=field):
        Model.open(path)


def test_a_file_outside_the_folder_is_refused(tmp_path: Path):
    path = tiny_model(tmp_path)
    (tmp_path / "secret").write_text("x")
    manifest = json.loads((path / MANIFEST).read_text()) | {"files": {"../secret": "0" * 64}}
    (path / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(ModelInvalid, match="inside the model's folder"):
        Model.open(path)


@pytest.mark.parametrize("name", ["weights.data", "extra/graph.onnx", "notes.txt"])
def test_a_file_that_is_not_in_the_manifest_is_refused(tmp_path: Path, name: str):
    path = tiny_model(tmp_path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("x")

    with pytest.raises(ModelInvalid, match=f"{name}: not in the manifest"):
        Model.open(path)


def test_the_graph_itself_must_have_a_checksum(tmp_path: Path):
    path = tiny_model(tmp_path)
    (path / "labels.txt").write_text("x")
    manifest = json.loads((path / MANIFEST).read_text()) | {
        "files": {"labels.txt": sha256_of(path / "labels.txt")}
    }
    (path / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(ModelInvalid, match=r"expected model\.onnx among them"):
        Model.open(path)


def test_the_digest_follows_the_graph_and_not_the_words(tmp_path: Path):
    one = Model.open(tiny_model(tmp_path / "a"))
    renamed = Model.open(tiny_model(tmp_path / "b", "other", description="The same graph, described."))
    relabelled = Model.open(tiny_model(tmp_path / "c", labels=[{"name": name} for name in ("a", "b", "c")]))

    assert one.digest == renamed.digest != relabelled.digest
