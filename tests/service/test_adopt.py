"""`brigantine models import`: graphs that others exported, and what is no such graph."""

import asyncio
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brigantine_image
import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from brigantine import cli
from brigantine.adopt import adopt
from brigantine.engine import Engine
from brigantine.errors import BrigantineError, ModelInvalid
from brigantine.foreign import Choices
from brigantine.model import Model
from brigantine.plugin import Plugin
from brigantine.request import prepare_row
from brigantine.session import Session, SessionOptions
from brigantine.settings import Settings
from brigantine.store import Store
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from tests.tiny import tiny_model

RNG = np.random.default_rng(7)
WEIGHTS = RNG.standard_normal((8, 48)).astype(np.float32)
BIAS = RNG.standard_normal((3, 48)).astype(np.float32)  # one row for each class
SHAPE = np.array([-1, 3, 4, 4])
Z = RNG.standard_normal((6, 8)).astype(np.float32)
LABEL = np.array([0, 1, 2, 2, 1, 0])

PLAIN = """g (float[1, 8] noise) => (float[1, 3, 4, 4] picture) {
    flat = MatMul (noise, weights) shaped = Reshape (flat, shape) picture = Tanh (shaped)
}"""
INDEXED = """g (float[1, 8] noise, int64[1] kind) => (float[1, 3, 4, 4] picture) {
    alone = MatMul (noise, weights) offset = Gather (bias, kind) flat = Add (alone, offset)
    shaped = Reshape (flat, shape) picture = Tanh (shaped)
}"""
ONE_HOT = """g (float[1, 3] kind, float[1, 8] noise) => (float[1, 3, 4, 4] picture) {
    alone = MatMul (noise, weights) offset = MatMul (kind, bias) flat = Add (alone, offset)
    shaped = Reshape (flat, shape) picture = Tanh (shaped)
}"""
WEIGHTED = {"weights": WEIGHTS, "shape": SHAPE}


@pytest.fixture(autouse=True)
def store_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty model store of BentoML's own kind."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    folder = tmp_path / "bentoml" / "models"
    folder.mkdir(parents=True)
    with BentoMLContainer.model_store_dir.patch(str(folder)):
        yield folder


def proto_of(text: str, opset: int = 20, ir: int = 10, **constants: NDArray[Any]) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "mine": 1]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return proto


def write(folder: Path, text: str, opset: int = 20, ir: int = 10, **constants: NDArray[Any]) -> Path:
    """A graph in ONNX's own words, with weights, as `theirs.onnx`."""
    path = folder / "theirs.onnx"
    path.write_bytes(proto_of(text, opset, ir, **({"bias": BIAS} | WEIGHTED | constants)).SerializeToString())
    return path


def take(path: Path, **choices: Any) -> Model:
    """Import it, and open what the store then has."""
    tag = adopt(path, "image", Choices(**choices)).tag
    return Store().get(tag.partition(":")[0]).open()


def refused(store: Path, path: Path, **choices: Any) -> str:
    plugin = choices.pop("plugin", "image")
    with pytest.raises(ModelInvalid) as caught:
        adopt(path, plugin, Choices(**choices))
    assert not list(store.iterdir())
    return str(caught.value)


def draw(
    model: Model, z: NDArray[np.float32] = Z, label: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    rows = {"z": z} | ({} if label is None else {"label": label})
    return Session.open(model, SessionOptions(device="cpu")).run(rows)["image"]


def by_hand(z: NDArray[np.float32] = Z, label: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """What the graphs above draw, [N, 3, 4, 4], -1..1."""
    flat = z @ WEIGHTS + (0 if label is None else BIAS[label])
    return np.tanh(flat).reshape(-1, 3, 4, 4)


def pixels_of(drawn: NDArray[np.float32]) -> NDArray[np.uint8]:
    """As the trainer's own export rounds them: [N, C, H, W], -1..1, to [N, H, W, C]."""
    drawn = drawn.astype(np.float32)
    return ((drawn + 1) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def assert_same(got: NDArray[np.uint8], expected: NDArray[np.uint8], share: float = 0.01) -> None:
    """Equal, but for pixels on the edge between two values."""
    assert got.shape == expected.shape and got.dtype == np.uint8
    apart = np.abs(got.astype(int) - expected.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() <= share
    assert expected.std() > 1, "a picture that could be wrong unseen"


class Dcgan(nn.Sequential):
    """The generator of PyTorch's DCGAN tutorial, with fewer channels inside."""

    def __init__(self, wide: int = 8) -> None:
        def block(out_of: int, into: int, stride: int, padding: int) -> list[nn.Module]:
            turned = nn.ConvTranspose2d(out_of, into, 4, stride, padding, bias=False)
            return [turned, nn.BatchNorm2d(into), nn.ReLU(True)]

        super().__init__(
            *block(100, wide * 8, 1, 0),
            *block(wide * 8, wide * 4, 2, 1),
            *block(wide * 4, wide * 2, 2, 1),
            *block(wide * 2, wide, 2, 1),
            nn.ConvTranspose2d(wide, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        torch.manual_seed(0)
        for layer in self:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.1)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, 0.0, 0.1)  # type: ignore[arg-type]


def exported(generator: nn.Module, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(generator, (torch.randn(1, 100, 1, 1),), str(path), verbose=False, **options)
    return path


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_generator_of_the_dcgan_tutorial_is_served(tmp_path: Path, dynamo: bool, mode: str):
    generator = getattr(Dcgan(), mode)()  # in the tutorial it is still in training
    path = exported(generator, tmp_path / "My G.onnx", dynamo=dynamo)
    if dynamo:
        assert (tmp_path / "My G.onnx.data").is_file(), "by default its weights lie beside the graph"

    assert adopt(path, "image", Choices()).tag.startswith("my-g:")

    engine = Engine.start(Settings(threads=1), only="my-g")
    try:
        made = asyncio.run(engine.generate("my-g", {"n": 3, "seed": 5}))
        plugin = engine.registry.models["my-g"].loaded
        assert isinstance(plugin, Plugin)
        latents = [prepare_row(plugin, plugin.params(), seed)["z"] for seed in made.seeds]
    finally:
        engine.close()
    got = np.stack([np.asarray(Image.open(io.BytesIO(media.body))) for media in made.media])
    with torch.inference_mode():
        drawn = generator.eval()(torch.from_numpy(np.stack(latents))[:, :, None, None]).numpy()
    assert got.shape == (3, 64, 64, 3)
    assert_same(got, pixels_of(drawn), share=0.001)


def test_the_manifest_says_what_was_imported(tmp_path: Path):
    path = write(tmp_path, PLAIN)

    model = take(path, name="mine", description="Noise.")

    manifest = model.manifest
    assert [spec.model_dump() for spec in manifest.inputs] == [
        {"name": "z", "dtype": "float32", "shape": ("batch", 8)}
    ]
    assert [spec.model_dump() for spec in manifest.outputs] == [
        {"name": "image", "dtype": "uint8", "shape": ("batch", 4, 4, 3)}
    ]
    assert (manifest.name, manifest.plugin, manifest.description) == ("mine", "image", "Noise.")
    assert manifest.training["imported_from"] == "theirs.onnx"
    assert list(manifest.files) == ["model.onnx"]
    assert_same(draw(model), pixels_of(by_hand()))


def test_importing_twice_is_publishing_once(tmp_path: Path, store_folder: Path):
    path = write(tmp_path, PLAIN)

    assert adopt(path, "image", Choices()).tag == adopt(path, "image", Choices()).tag
    assert len(list(store_folder.glob("theirs/*/manifest.json"))) == 1


@pytest.mark.parametrize("shape", ["1, 8", "16, 8", "N, 8", "1, 8, 1, 1", "N, 8, 1, 1"])
@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
def test_a_latent_of_any_form_becomes_z(tmp_path: Path, shape: str, dtype: str):
    number = {"float": 1, "float16": 10, "double": 11}[dtype]
    text = f"""g ({dtype}[{shape}] noise) => ({dtype}[?, 3, 4, 4] picture) {{
        wide = Cast <to = 1> (noise) rows = Reshape (wide, rowed) flat = MatMul (rows, weights)
        shaped = Reshape (flat, shape) drawn = Tanh (shaped) picture = Cast <to = {number}> (drawn)
    }}""".replace("?", "N")

    model = take(write(tmp_path, text, rowed=np.array([-1, 8])))

    z = Z.astype(np.float16).astype(np.float32)
    drawn = by_hand(z).astype(np.float16) if dtype == "float16" else by_hand(z)
    assert_same(draw(model, z), pixels_of(drawn.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("shape", ["1", "N"])
def test_a_class_becomes_label(tmp_path: Path, dtype: str, shape: str):
    path = write(tmp_path, INDEXED.replace("int64[1]", f"{dtype}[{shape}]"))

    model = take(path, labels=("cat", "dog", "cow"))

    assert [label.name for label in model.manifest.labels] == ["cat", "dog", "cow"]
    assert_same(draw(model, label=LABEL), pixels_of(by_hand(label=LABEL)))
    assert [label.name for label in take(path, classes=3).manifest.labels] == ["0", "1", "2"]


def test_a_one_hot_class_becomes_label_once_it_is_told_from_the_latent(tmp_path: Path, store_folder: Path):
    path = write(tmp_path, ONE_HOT)
    assert "give --latent-input NAME" in refused(store_folder, path)

    for choice in ({"latent_input": "noise"}, {"class_input": "kind"}):
        model = take(path, **choice)

        assert [label.name for label in model.manifest.labels] == ["0", "1", "2"]
        assert_same(draw(model, label=LABEL), pixels_of(by_hand(label=LABEL)))


@pytest.mark.parametrize(
    ("last", "value_range", "low", "high"),
    [("Tanh", "", -1, 1), ("Sigmoid", "", 0, 1), ("Erf", "-1..1", -1, 1), ("Sigmoid", "0..255", 0, 255)],
)
def test_the_range_is_told_by_the_last_operator_or_given(
    tmp_path: Path, last: str, value_range: str, low: int, high: int
):
    # With what moves values behind it.
    text = PLAIN.replace(
        "picture = Tanh (shaped)",
        f"last = {last} (shaped) turned = Transpose (last) picture = Transpose (turned)",
    )
    flat = torch.from_numpy(Z @ WEIGHTS).reshape(-1, 3, 4, 4)
    drawn = {"Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Erf": torch.erf}[last](flat).numpy()

    model = take(write(tmp_path, text), value_range=value_range)

    expected = (
        ((drawn - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    )
    apart = np.abs(draw(model).astype(int) - expected.astype(int))
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


def test_floats_are_rounded_half_to_even_and_cut_off(tmp_path: Path):
    text = """g (float[1, 8] noise) => (float[1, 1, 2, 4] picture) {
        scaled = Mul (noise, sixteen) moved = Add (scaled, grey) picture = Reshape (moved, square)
    }"""
    sixteen, grey = np.array(16, np.float32), np.array(128, np.float32)
    path = write(tmp_path, text, sixteen=sixteen, grey=grey, square=np.array([-1, 1, 2, 4]))

    model = take(path, value_range="0..255")

    values = np.array([[0.5, 1.5, 2.5, -7, 300, 254.5, 255.25, 7.75]])
    z = ((values - 128) / 16).astype(np.float32)  # exact

    assert draw(model, z).ravel().tolist() == [0, 2, 2, 0, 255, 254, 255, 8]


@pytest.mark.parametrize("shape", [(-1, 3, 4, 5), (-1, 4, 5, 3)])
def test_bytes_are_taken_as_they_are(tmp_path: Path, shape: tuple[int, ...]):
    weights = np.tile(WEIGHTS, (1, 2))[:, :60]
    sizes = ", ".join(map(str, shape[1:]))
    text = f"""g (float[1, 8] noise) => (uint8[1, {sizes}] picture) {{
        flat = MatMul (noise, weights) grey = Sigmoid (flat) scaled = Mul (grey, white)
        bytes = Cast <to = 2> (scaled) picture = Reshape (bytes, shape)
    }}"""

    model = take(
        write(tmp_path, text, weights=weights, shape=np.array(shape), white=np.asarray(np.float32(255)))
    )

    expected = (255 / (1 + np.exp(-Z @ weights))).astype(np.uint8).reshape(shape)
    assert_same(draw(model), expected.transpose(0, 2, 3, 1) if shape[1] == 3 else expected, share=0.02)


def test_what_was_found_and_seen_is_told(tmp_path: Path):
    plain = adopt(write(tmp_path, PLAIN), "image", Choices())
    assert plain.told.startswith(
        "theirs.onnx: the latent 'noise' float32 [1, 8], 8 numbers; no class; the output 'picture' float32 "
        "[1, 3, 4, 4]; pictures of 4x4 in 3 channels, with values in -1..1, of which -"
    )
    assert plain.doubts == []

    indexed = adopt(write(tmp_path, INDEXED), "image", Choices(classes=3))
    assert "; the class 'kind' int64 [1], 3 labels; " in indexed.told


SIGMOID = PLAIN.replace("Tanh", "Sigmoid")
CLIPPED = PLAIN.replace("picture = Tanh (shaped)", "picture = Mul (shaped, scale)")


@pytest.mark.parametrize(
    ("text", "given", "doubt"),
    [
        (PLAIN, "-1..1", ""),
        (SIGMOID, "0..1", ""),
        (SIGMOID, "-1..1", "so that pictures have little contrast; try --range=0..1"),
        (SIGMOID, "0..255", "of 0..255 was seen, so that pictures have little contrast; try --range=0..1"),
        (CLIPPED, "-1..1", "of the values, -"),
    ],
)
def test_a_range_that_does_not_look_right_is_doubted(tmp_path: Path, text: str, given: str, doubt: str):
    path = write(tmp_path, text, scale=np.asarray(np.float32(0.2)))

    doubts = adopt(path, "image", Choices(value_range=given)).doubts

    assert len(doubts) == (1 if doubt else 0)
    assert doubt in "".join(doubts)


def test_what_had_the_name_before_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = adopt(write(tmp_path, PLAIN), "image", Choices())
    again = adopt(write(tmp_path, PLAIN), "image", Choices())
    other = adopt(write(tmp_path, SIGMOID), "image", Choices())
    shipped = adopt(write(tmp_path, PLAIN), "image", Choices(name="mnist"))
    monkeypatch.setenv("BRIGANTINE_MODELS_DIR", str(tiny_model(tmp_path / "models", "eve").parent))
    hidden = adopt(write(tmp_path, PLAIN), "image", Choices(name="eve"))

    assert first.earlier == ""
    assert again.earlier == f"{first.tag} was there already"
    assert other.earlier == f"{first.tag} had this name before, and is no longer served"
    assert shipped.earlier == "plugin brigantine_image has a model called mnist too, which gives way to it"
    assert "has a model called eve too, which is searched first, and serves" in hidden.earlier


def test_names_that_are_ours_are_free(tmp_path: Path):
    text = """g (float[1, 8, 1, 1] image) => (float[1, 3, 4, 4] z) {
        z_cast = Reshape (image, rowed) label = MatMul (z_cast, weights) rounded = Reshape (label, shape)
        z = Tanh (rounded)
    }"""

    assert_same(draw(take(write(tmp_path, text, rowed=np.array([-1, 8])))), pixels_of(by_hand()))


def test_values_inside_a_branch_are_renamed_too(tmp_path: Path):
    text = """g (float[1, 8] z) => (float[1, 3, 4, 4] picture) {
        flat = If (yes) <
            then_branch = yes_g () => (float[1, 48] image) { image = MatMul (z, weights) },
            else_branch = no_g () => (float[1, 48] pixels) { pixels = MatMul (z, weights) }
        >
        shaped = Reshape (flat, shape) picture = Tanh (shaped)
    }"""

    model = take(write(tmp_path, text, yes=np.array(True)))

    assert_same(draw(model), pixels_of(by_hand()))
    [branch, _] = [
        a.g
        for node in onnx.load(model.graph).graph.node
        for a in node.attribute
        if a.name.endswith("_branch")
    ]
    assert not branch.output[0].type.tensor_type.HasField("shape"), "a batch of 1 is left in it"


def test_an_input_that_an_operator_leaves_out_stays_out(tmp_path: Path):
    path = write(tmp_path, PLAIN.replace("picture = Tanh (shaped)", "picture = Tanh (bound)"))
    proto = onnx.load(path)
    proto.graph.node.insert(2, onnx.helper.make_node("Clip", ["shaped", "", "most"], ["bound"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "most"))
    path.write_bytes(proto.SerializeToString())

    assert_same(draw(take(path)), pixels_of(np.minimum(by_hand(), np.tanh(np.float32(0.5)))))


def test_what_the_exporter_noted_of_its_machine_is_dropped(tmp_path: Path):
    path = write(tmp_path, PLAIN)
    proto = onnx.load(path)
    proto.graph.node[0].doc_string = proto.graph.initializer[0].doc_string = "/home/someone"
    proto.graph.node[0].metadata_props.add(key="stack", value="/home/someone")
    path.write_bytes(proto.SerializeToString())

    assert b"/home/someone" not in take(path).graph.read_bytes()


def test_operators_that_the_graph_defines_itself_are_known(tmp_path: Path):
    text = PLAIN.replace("Tanh (shaped)", "mine.Last (shaped)") + (
        '<domain: "mine", opset_import: ["": 20]> Last (x) => (y) { y = Tanh (x) }'
    )

    assert_same(draw(take(write(tmp_path, text), value_range="-1..1")), pixels_of(by_hand()))


def test_weights_that_are_inputs_too_are_no_inputs(tmp_path: Path):
    text = PLAIN.replace("noise)", "noise, float[8, 48] weights, int64[4] shape)", 1)

    model = take(write(tmp_path, text, opset=11, ir=3))

    assert [spec.name for spec in model.manifest.inputs] == ["z"]
    assert_same(draw(model), pixels_of(by_hand()))


def test_a_model_of_ours_is_drawn_as_before(tmp_path: Path):
    ours = Store().get("mnist").open()

    model = take(ours.graph, name="again", classes=10)

    label = np.arange(10)
    z = np.random.default_rng(0).standard_normal((10, int(ours.manifest.inputs[0].shape[1])), np.float32)
    assert np.array_equal(draw(model, z, label), draw(ours, z, label))
    assert Path(brigantine_image.__file__).parent in ours.path.parents


def test_one_of_several_outputs_is_chosen(tmp_path: Path, store_folder: Path):
    path = write(tmp_path, PLAIN.replace("(float[1, 3", "(float[1, 48] flat, float[1, 3"))
    assert "give --output NAME" in refused(store_folder, path)
    assert "got 'flatt' of 'flat' float32 [1, 48]" in refused(store_folder, path, output="flatt")
    assert "got an output [5, 48]; export it with such an output" in refused(
        store_folder, path, output="flat", value_range="0..255"
    )

    assert_same(draw(take(path, output="picture")), pixels_of(by_hand()))


def beside(folder: Path, **entries: str | None) -> Path:
    """A graph whose weights lie in `theirs.data`, where its words about them are changed to `entries`."""
    (folder / "theirs.data").write_bytes(b"\0" * 64 + WEIGHTS.tobytes())
    proto = proto_of(PLAIN, **WEIGHTED)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    said = {"location": "theirs.data", "offset": "64", "length": str(WEIGHTS.nbytes)} | entries
    for key, value in said.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    (folder / "theirs.onnx").write_bytes(proto.SerializeToString())
    return folder / "theirs.onnx"


@pytest.mark.parametrize("entries", [{}, {"length": None}, {"location": "./theirs.data"}])
def test_weights_beside_the_graph_are_folded_into_it(tmp_path: Path, entries: dict[str, str | None]):
    model = take(beside(tmp_path, **entries))

    assert [file.name for file in model.path.glob("*.onnx*")] == ["model.onnx"]
    assert_same(draw(model), pixels_of(by_hand()))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "/etc/passwd"}, "expected a file in the folder of the graph, got '/etc/passwd'"),
        ({"location": "../secret"}, "expected a file in the folder of the graph, got '../secret'"),
        ({"location": "inside/../theirs.data"}, "expected a file in the folder of the graph"),
        ({"location": "ABSOLUTE"}, "expected a file in the folder of the graph"),
        ({"location": "link"}, "expected a file in the folder of the graph, got 'link'"),
        ({"location": "folder/secret"}, "expected a file in the folder of the graph, got 'folder/secret'"),
        ({"location": "a\0b"}, "expected a file in the folder of the graph"),
        ({"location": ""}, "expected a file in the folder of the graph"),
        ({"location": None}, "expected a file in the folder of the graph"),
        ({"location": "nowhere"}, "got no file of this name; copy it beside the graph"),
        ({"location": "."}, "got no file of this name"),
        ({"offset": "65"}, "got a file of 1600 bytes"),
        ({"offset": "-64"}, "got a file of 1600 bytes"),
        ({"length": "-1"}, "got a file of 1600 bytes"),
        ({"length": "9" * 30}, "got a file of 1600 bytes"),
        ({"offset": "many"}, "got a file of 1600 bytes"),
        ({"length": "16"}, "expected a graph that this ONNX Runtime can load"),
    ],
)
def test_weights_elsewhere_are_not_read(
    tmp_path: Path, store_folder: Path, entries: dict[str, str | None], reason: str
):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 64 + WEIGHTS.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "inside").mkdir()
    if entries.get("location") == "ABSOLUTE":
        entries = {"location": str(folder / "theirs.data")}

    assert reason in refused(store_folder, beside(folder, **entries))


@pytest.mark.parametrize("nested", [False, True])
def test_weights_that_hide_in_an_operator_are_found(tmp_path: Path, store_folder: Path, nested: bool):
    proto = proto_of(PLAIN, shape=SHAPE)
    [tensor] = [numpy_helper.from_array(WEIGHTS, "weights")]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = onnx.helper.make_node("Constant", [], ["weights"], value=tensor)
    if nested:
        info = onnx.helper.make_tensor_value_info("weights", 1, [8, 48])
        branch = onnx.helper.make_graph([node], "branch", [], [info])
        node = onnx.helper.make_node("If", ["yes"], ["weights"], then_branch=branch, else_branch=branch)
        proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.insert(0, node)
    (tmp_path / "theirs.onnx").write_bytes(proto.SerializeToString())

    assert "got '/etc/passwd'" in refused(store_folder, tmp_path / "theirs.onnx")


def test_all_places_are_checked_before_one_is_read(
    tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    path = beside(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    escaping = proto.graph.initializer.add()
    escaping.CopyFrom(proto.graph.initializer[0])
    escaping.name = "later"
    escaping.external_data[0].value = "../secret"
    path.write_bytes(proto.SerializeToString())
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self.name) or real(self, *a, **k))

    assert "'../secret'" in refused(store_folder, path)
    assert opened == ["theirs.onnx"]


def test_weights_of_more_than_2_gib_are_refused_unread(tmp_path: Path, store_folder: Path):
    path = beside(tmp_path, offset="0", length=str(2**31))
    with (tmp_path / "theirs.data").open("r+b") as file:
        file.truncate(2**31)

    assert "expected at most 2 GiB in all, got 21474" in refused(store_folder, path)


class Counted(io.FileIO):
    """A file that adds up what is read of it."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        body = super().read(min(size or 0, 2**20)) or b""
        Counted.total += len(body)
        return body


@pytest.mark.parametrize(("first", "size"), [(b"\0", 3 * 2**30), (b"\x08", 3 * 2**30), (b"\0", 2**20)])
def test_3_gb_of_zeros_are_refused_unread(
    tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, size: int
):
    path = tmp_path / "zeros.onnx"
    path.write_bytes(first)
    os.truncate(path, size)
    monkeypatch.setattr(Counted, "total", 0)
    monkeypatch.setattr(Path, "open", lambda self, _: Counted(self))

    message = refused(store_folder, path)

    assert f"expected an ONNX file, whole and at most 2 GiB, got {size} bytes" in message
    assert Counted.total == 1


@pytest.mark.parametrize(
    "body", [b"", b"\0" * 4096, b"PK\3\4 a checkpoint", b"version https://git-lfs", b"\x08\xff\xff"]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, store_folder: Path, body: bytes):
    path = tmp_path / "theirs.onnx"
    path.write_bytes(body)

    assert f"{path}: expected an ONNX file" in refused(store_folder, path)


def test_a_file_that_was_cut_short_is_refused_wherever_it_ends(tmp_path: Path, store_folder: Path):
    path = write(tmp_path, PLAIN)
    body = path.read_bytes()

    for end in [*range(1, len(body), max(1, len(body) // 40)), len(body) - 1]:
        path.write_bytes(body[:end])
        assert "export it" in refused(store_folder, path)


@pytest.mark.parametrize("name", ["nowhere.onnx", "."])
def test_a_path_without_a_file_is_refused(tmp_path: Path, store_folder: Path, name: str):
    assert "check the path" in refused(store_folder, tmp_path / name)


def swapped(old: str, new: str, text: str = PLAIN) -> str:
    assert old in text
    return text.replace(old, new)


SWAYED = "all = ReduceSum (shaped, axes) swayed = Add (shaped, all) picture = Tanh (swayed)"
LUCKY = "luck = RandomNormalLike (shaped) swayed = Add (shaped, luck) picture = Tanh (swayed)"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (PLAIN, {"plugin": "audio"}, "--plugin: expected image or text, got 'audio'"),
    (PLAIN, {"name": "My Digits"}, "--name: expected lower-case letters"),
    (PLAIN, {"opset": 99}, "expected a graph that this ONNX Runtime can load"),
    (PLAIN, {"opset": 10}, "expected opset 11 or later, got 10; export it with opset_version=17"),
    (swapped("Tanh", "mine.Tanh"), {"value_range": "-1..1"}, "got mine:Tanh; export it without them"),
    (swapped("Tanh", "Tahn"), {"value_range": "-1..1"}, "expected a graph that this ONNX Runtime can load"),
    (swapped("float[1, 8] noise", "int64[1, 8] noise"), {}, "expected one latent"),
    (swapped("float[1, 8] noise", "float[1, K] noise"), {}, "with a fixed Z, got the inputs 'noise' float32 [1, K]"),
    (swapped("float[1, 8] noise", "float[1, 8, 4, 4] noise"), {}, "export a generator that takes one"),
    (swapped("float[1, 8] noise", "float[1, 8] noise, float psi"), {}, "expected a latent and perhaps a class"),
    (swapped("noise)", "noise, int64[1] a, int64[1] b)"), {}, "export it with the other inputs as constants"),
    (PLAIN, {"latent_input": "z"}, "--latent-input: expected an input of"),
    (PLAIN, {"class_input": "y"}, "--class-input: expected an input of"),
    (PLAIN, {"class_input": "noise"}, "expected one latent"),
    (PLAIN, {"classes": 3}, "--classes: expected none for"),
    (INDEXED, {}, "give --labels a,b or --classes K"),
    (INDEXED, {"classes": 4}, "its classes may be fewer than 4: give --classes or --labels"),
    (INDEXED, {"classes": 3, "labels": ("a", "b")}, "as many as --classes and as the input 'kind' int64 [1] has"),
    (INDEXED, {"labels": ("a", "b", "A")}, "--labels: expected names that differ"),
    (INDEXED, {"labels": ("a", "", "c")}, "--labels: expected names that differ"),
    (ONE_HOT, {"latent_input": "noise", "classes": 4}, "as the input 'kind' float32 [1, 3] has, got '0,1,2,3'"),
    (swapped("Tanh", "Softsign"), {}, "got the last operator Softsign, which does not tell it; give --range"),
    (PLAIN, {"value_range": "-2..2"}, "got -2..2; give --range=-1..1|0..1|0..255"),
    (swapped("Tanh (shaped)", "Exp (shaped)"), {"value_range": "-1..1", "scale": 9}, "give another --range"),
    (PLAIN, {"value_range": "0..1"}, "expected values in 0..1, got -1..1; give another --range"),
    (swapped("picture = Tanh", "picture = Identity () unused = Tanh"), {}, "the last operator unknown"),
    (swapped("picture = Tanh", "picture = Identity () unused = Tanh"),
     {"value_range": "0..1"}, "expected a graph that this ONNX Runtime can load"),
    (swapped("picture = Tanh", "nothing = Sub (shaped, shaped) picture = Div (shaped, nothing) unused = Tanh"),
     {"value_range": "0..1"}, "got NaN or infinity; export sound weights"),
    (swapped("float[1, 3, 4, 4] picture", "int64[1, 3, 4, 4] picture"), {}, "expected floats or uint8, got the output"),
    (PLAIN, {"shape": np.array([-1, 48])}, "expected pictures [N, C, H, W]"),
    (PLAIN, {"shape": np.array([-1, 2, 4, 6])}, "expected pictures [N, C, H, W]"),
    (PLAIN, {"shape": np.array([1, 3, 4, 4])},  "dynamic_axes={'noise': {0: 'batch'}}"),
    (swapped("Gather (bias, kind)", "Gather (bias, kind)", INDEXED), {"classes": 3, "shape": np.array([1, 3, 4, 4])},
     "dynamic_axes={'noise': {0: 'batch'}, 'kind': {0: 'batch'}}"),
    (PLAIN, {"shape": np.array([1, 3, 4, -1])}, "export it again with a dynamic batch"),
    (swapped("picture = Tanh (shaped)", SWAYED),
     {}, "expected the same picture alone and in a batch, got others"),
    (swapped("picture = Tanh (shaped)", LUCKY),
     {}, "without noise of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "choices", "reason"), REFUSED)
def test_what_cannot_be_served_is_refused_with_a_remedy(
    tmp_path: Path, store_folder: Path, text: str, choices: dict[str, Any], reason: str
):
    constants: dict[str, Any] = {"axes": np.array([0])}
    choices = dict(choices)
    opset, scale = choices.pop("opset", 20), choices.pop("scale", 1)
    constants |= {"shape": choices.pop("shape", SHAPE), "weights": WEIGHTS * np.float32(scale)}
    path = write(tmp_path, text, opset, **constants)

    message = refused(store_folder, path, **choices)

    assert reason in message
    assert "expected" in message and "got" in message
    assert "; " in message or message.startswith("--name"), "the store's own words for a name have no remedy"


def test_a_plugin_that_refuses_the_model_is_heard_before_it_is_published(
    tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(self: object) -> None:
        raise ValueError("not this one")

    monkeypatch.setattr(brigantine_image.ImagePlugin, "load", load)

    assert "ValueError: not this one" in refused(store_folder, write(tmp_path, PLAIN))


def test_the_command_hands_over_every_choice(tmp_path: Path):
    text = swapped("(float[1, 3, 4, 4] picture)", "(float[1, 48] flat, float[1, 3, 4, 4] picture)", ONE_HOT)
    arguments = [
        "--name",
        "mine",
        "--labels",
        "a, b,c",
        "--classes",
        "3",
        "--range=-1..1",
        "--description",
        "Noise.",
    ]
    arguments += ["--latent-input", "noise", "--class-input", "kind", "--output", "picture"]

    ran = CliRunner().invoke(
        cli.app,
        ["models", "import", str(write(tmp_path, text)), "--plugin", "image", *arguments],
        catch_exceptions=False,
    )

    assert ran.exit_code == 0, ran.output
    assert ran.output.startswith(
        "theirs.onnx: the latent 'noise' float32 [1, 8], 8 numbers; the class 'kind'"
    )
    assert "\npublished mine:" in ran.output
    model = Store().get("mine").open()
    assert [label.name for label in model.manifest.labels] == ["a", "b", "c"]
    assert model.manifest.description == "Noise."
    assert_same(draw(model, label=LABEL), pixels_of(by_hand(label=LABEL)))


def test_the_command_refuses_with_an_error_of_ours(tmp_path: Path):
    ran = CliRunner().invoke(cli.app, ["models", "import", str(tmp_path / "x.onnx"), "--plugin", "image"])

    assert isinstance(ran.exception, BrigantineError)
