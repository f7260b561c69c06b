"""Export: the graph is what the service needs, and draws what the network draws."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from brigantine.model import Label, Model
from brigantine.session import Session
from brigantine_training.errors import ExportMismatch
from brigantine_training.export import BATCHES, Facts, export_model, label_of, write_manifest
from brigantine_training.networks import Generator, build_generator
from torch import Tensor

from tests.tiny import tiny_model
from tests.training.digits import tiny_config

FACTS = Facts("tiny", "Noise.", "CC0", (Label(name="one"),), {"command": "test"})


def _generator(architecture: str) -> Generator:
    torch.manual_seed(0)
    generator = build_generator(tiny_config(generator=architecture), 10, (1, 8, 8))
    for module in generator.modules():  # as after training: nothing is zero that would fold away
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)  # pyright: ignore[reportArgumentType]
    return generator


@pytest.mark.parametrize("architecture", ["dcgan", "mlp"])
def test_the_graph_is_what_the_service_needs(
    architecture: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    generator = _generator(architecture)
    export_model(generator, tmp_path / "deep" / "model", FACTS)
    assert capfd.readouterr() == ("", "")
    model = Model.open(tmp_path / "deep" / "model")
    assert sorted(path.name for path in model.path.iterdir()) == ["manifest.json", "model.onnx"]
    assert model.manifest.inputs[0].shape == ("batch", 4)
    assert model.manifest.outputs[0].shape == ("batch", 8, 8, 1)
    assert (model.manifest.plugin, model.manifest.max_batch) == ("image", 64)
    assert model.manifest.parity.keys() == {str(batch) for batch in BATCHES}
    assert 0 <= max(model.manifest.parity.values()) <= 1e-5
    z = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    label = np.array([0, 5, 9])
    image = Session.open(model).run({"z": z, "label": label})["image"]
    drawn = generator.eval()(torch.from_numpy(z), torch.from_numpy(label))
    expected = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert np.array_equal(image, expected.numpy())


def test_the_file_is_bare_float32_and_the_same_each_time(tmp_path: Path):
    generator = _generator("dcgan").double()
    first = export_model(generator, tmp_path / "a", FACTS)
    again = export_model(generator, tmp_path / "b", FACTS)
    assert first.manifest.files == again.manifest.files
    body = first.graph.read_bytes()
    assert b"/brigantine_training/" not in body
    assert b".py" not in body
    types = {part.data_type for part in onnx.load(first.graph).graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


class _Restless(Generator):
    """Draws something else each time: what an export cannot hold."""

    calls = 0

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        return (z.sum(1) + label + self.calls).tanh()[:, None, None, None].expand(-1, *self.image_shape)


def test_a_graph_that_draws_something_else_is_refused(tmp_path: Path):
    with pytest.raises(ExportMismatch, match=r"model\.onnx at batch 1: expected .* got "):
        export_model(_Restless(4, 10, (1, 8, 8)), tmp_path / "model", FACTS)
    assert not (tmp_path / "model").exists()


def test_a_network_that_draws_nan_is_refused(tmp_path: Path):
    generator = _generator("mlp")
    torch.nn.init.constant_(next(generator.layers.parameters()), torch.nan)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportCallIssue]
    with pytest.raises(ExportMismatch, match="got nan"):
        export_model(generator, tmp_path / "model", FACTS)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("7 - seven", Label(name="seven", aliases=("7",))),
        ("T-shirt/top", Label(name="T-shirt/top")),
        ("cat", Label(name="cat")),
    ],
)
def test_labels_are_named_by_word_and_number(name: str, label: Label):
    assert label_of(name) == label


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = Model.open(tiny_model(tmp_path))

    def fail(source: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_manifest(model.path, model.manifest.model_copy(update={"name": "other"}))
    assert Model.open(model.path).manifest == model.manifest
