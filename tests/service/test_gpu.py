"""What only a GPU shows: it is really used, and a seed has the same bits there in any company."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine.adopt_text import adopt_text
from brigantine.decoder import CHUNK, Decoder
from brigantine.foreign import Choices
from brigantine.model import GRAPH, MANIFEST, Manifest, Model, TensorSpec, sha256_of
from brigantine.session import Session, SessionOptions, cuda_at_hand
from brigantine.slots import Place
from brigantine.store import Store
from brigantine.tensors import DeviceTensors
from onnx import TensorProto, helper, numpy_helper

from tests.hub import hub_folder
from tests.scribble import scribble_model
from tests.tiny import tiny_batch, tiny_model


def _has_gpu() -> bool:
    """Whether there is one, with its driver, and an ONNX Runtime that can use it."""
    tool = shutil.which("nvidia-smi")
    return cuda_at_hand() and tool is not None and subprocess.run([tool, "-L"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not _has_gpu(),
    reason="needs an NVIDIA GPU with its driver, and onnxruntime-gpu in onnxruntime's place: `make gpu`",
)
ON_CPU = SessionOptions(device="cpu")


def opened(path: Path, **options: Any) -> Session:
    session = Session.open(Model.open(path), SessionOptions(**options), require_gpu=True)
    assert (session.device, session.fell_back) == ("cuda", False)
    return session


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_gpu_draws_what_a_cpu_draws_and_each_row_as_alone(cuda_graphs: bool):
    path = Store().find()["mnist"].path
    session, cpu = opened(path, cuda_graphs=cuda_graphs), Session.open(Model.open(path), ON_CPU)
    rng = np.random.default_rng(0)
    z_dim = int(session.model.manifest.inputs[0].shape[1])
    batch = {
        "z": rng.standard_normal((70, z_dim), dtype=np.float32),
        "label": rng.integers(10, size=70),
    }  # over the largest bucket

    images = session.run(batch)["image"]

    off = np.abs(images.astype(int) - cpu.run(batch)["image"])
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3
    for size in (1, 3, 17):
        parts = [
            session.run({name: values[at : at + size] for name, values in batch.items()})["image"]
            for at in range(0, 70, size)
        ]
        assert np.array_equal(np.concatenate(parts), images)


def test_models_are_loaded_and_run_beside_each_other(tmp_path: Path):
    """One records its CUDA graphs while others load and run: none of them may spoil the other's."""
    paths = [tiny_model(tmp_path, f"tiny{number}", max_batch=64) for number in range(6)]
    text = Model.open(scribble_model(tmp_path))
    expected = Session.open(Model.open(paths[0]), ON_CPU).run(tiny_batch(40))["image"]

    def load_and_run(path: Path) -> np.ndarray:
        session = opened(path)
        return np.stack([session.run(tiny_batch(40))["image"] for _ in range(50)])

    def load_and_write(_: int) -> None:
        decoder = Decoder(opened(text.path), 160)
        assert isinstance(decoder._slots.tensors, DeviceTensors)
        for length in range(1, 40):  # each is bound anew
            read(decoder, list(range(length)))

    with ThreadPoolExecutor(len(paths) + 2) as pool:
        writing = [pool.submit(load_and_write, number) for number in range(2)]
        for images in pool.map(load_and_run, paths):
            assert np.abs(images.astype(int) - expected).max() <= 1
        for one in writing:
            one.result()


def test_what_cudnn_adds_up_in_any_order_is_run_so_that_the_bits_stay(tmp_path: Path):
    session = opened(_enlarging(tmp_path))
    rng = np.random.default_rng(0)
    z = rng.standard_normal((64, 256, 32, 32), dtype=np.float32)

    images = session.run({"z": z})["image"]

    assert session._buckets is not None and session._buckets.reproducible
    for _ in range(3):
        assert np.array_equal(session.run({"z": z})["image"], images)
    alone = [session.run({"z": z[row : row + 1]})["image"][0] for row in range(64)]
    assert np.array_equal(np.stack(alone), images)
    expected = Session.open(session.model, ON_CPU).run({"z": z[:4]})["image"]
    assert np.abs(images[:4].astype(int) - expected).max() <= 1


def _enlarging(folder: Path) -> Path:
    """A transposed convolution as in the middle of a generator of large pictures, and its pixels."""
    rng = np.random.default_rng(0)
    weights = {
        "weight": 0.02 * rng.standard_normal((256, 16, 4, 4), dtype=np.float32),
        "white": np.float32(100),
    }
    nodes = [
        helper.make_node("ConvTranspose", ["z", "weight"], ["drawn"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Abs", ["drawn"], ["bright"]),
        helper.make_node("Mul", ["bright", "white"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["image"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "enlarging",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 256, 32, 32])],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 64, 64])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    path = folder / "enlarging"
    path.mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path / GRAPH
    )
    manifest = Manifest(
        name="enlarging",
        plugin="image",
        files={GRAPH: sha256_of(path / GRAPH)},
        inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", 256, 32, 32)),),
        outputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", 16, 64, 64)),),
        max_batch=64,
    )
    (path / MANIFEST).write_text(manifest.model_dump_json())
    return path


@pytest.mark.parametrize("architecture", ["GPT2", "Mistral"])
def test_an_imported_language_model_has_its_cache_on_the_device_and_says_nearly_the_same(
    tmp_path: Path, architecture: str
):
    """As it is traced: without an operator of its own for all that a Llama has."""
    hub_folder(tmp_path, architecture)
    adopted = adopt_text(tmp_path, Choices(name=architecture.lower()))
    path = Store().get(adopted.tag.partition(":")[0]).path
    decoder, cpu = Decoder(opened(path), 128), Decoder(Session.open(Model.open(path), ON_CPU), 128)
    assert isinstance(decoder._slots.tensors, DeviceTensors)
    prompt = [(7 * at) % 288 for at in range(90)]  # over Mistral's window
    (place, logits), (kept, expected) = read(decoder, prompt), read(cpu, prompt)
    np.testing.assert_allclose(logits, expected, atol=0.03 * np.abs(expected).max())
    for at in range(90, 100):
        made, expected = decoder.decode([place], [11], [at]), cpu.decode([kept], [11], [at])
        np.testing.assert_allclose(made, expected, atol=0.03 * np.abs(expected).max())


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return opened(scribble_model(tmp_path))


def read(decoder: Decoder, prompt: list[int]) -> tuple[Place, np.ndarray]:
    taken = decoder.place(prompt)
    assert taken is not None
    logits = [decoder.read(taken[0], prompt, at)[-1] for at in range(taken[1], len(prompt), CHUNK)]
    return taken[0], logits[-1]


def test_a_language_model_says_nearly_what_it_says_on_a_cpu(tmp_path: Path, session: Session):
    decoder = Decoder(session, 160)
    cpu = Decoder(Session.open(session.model, ON_CPU), 160)
    assert isinstance(decoder._slots.tensors, DeviceTensors)
    for length in (1, 5, 33, 64, 90):
        prompt = [(7 * at) % 288 for at in range(length)]
        (place, logits), (kept, expected) = read(decoder, prompt), read(cpu, prompt)
        most = 0.02 * np.abs(expected).max()
        np.testing.assert_allclose(logits, expected, atol=most)
        for at in range(length, length + 3):
            made, expected = decoder.decode([place], [11], [at]), cpu.decode([kept], [11], [at])
            np.testing.assert_allclose(made, expected, atol=most)


def test_a_text_has_the_same_bits_in_any_company_and_slot(session: Session):
    prompts = [
        [(7 * at + row) % 288 for at in range(length)] for row, length in enumerate((1, 5, 33, 64, 90))
    ]

    def alone(prompt: list[int]) -> bytes:
        decoder = Decoder(session, 160)
        place, logits = read(decoder, prompt)
        return logits.tobytes() + decoder.decode([place], [11], [len(prompt)]).tobytes()

    expected = [alone(prompt) for prompt in prompts]
    decoder = Decoder(session, 160)
    begun = [read(decoder, prompt) for prompt in prompts]
    rng, places = np.random.default_rng(0), list[Place]()
    for _ in range(20):
        rows = rng.permutation(len(prompts))[: rng.integers(1, len(prompts) + 1)]
        places, lengths = [begun[row][0] for row in rows], [len(prompts[row]) for row in rows]
        logits = decoder.decode(places, [11] * len(rows), lengths)
        for row, made in zip(rows, logits, strict=True):
            assert begun[row][1].tobytes() + made.tobytes() == expected[row]
    del begun, places
    again = [read(decoder, prompt) for prompt in prompts[::-1]]  # from what the slots have kept
    assert [logits.tobytes() for _, logits in again[::-1]] == [
        one[: logits.nbytes] for one, (_, logits) in zip(expected, again[::-1], strict=True)
    ]


def test_without_half_precision_a_text_is_the_same_only_slower(tmp_path: Path):
    model = Model.open(scribble_model(tmp_path))
    decoder = Decoder(opened(model.path, gpu_fp16=False), 160)
    cpu = Decoder(Session.open(model, ON_CPU), 160)
    prompt = [(7 * at) % 288 for at in range(40)]
    (place, logits), (kept, expected) = read(decoder, prompt), read(cpu, prompt)
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    for at in range(40, 60):
        made, expected = decoder.decode([place], [11], [at]), cpu.decode([kept], [11], [at])
        np.testing.assert_allclose(made, expected, atol=1e-3)
