"""Weights in a file that several processes map: the same bits, once in memory, and what can go wrong with that."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from brigantine import weights
from brigantine.model import MANIFEST, Manifest, Model, TensorSpec, sha256_of
from brigantine.opening import _ROOM, SessionOptions
from brigantine.session import Session
from brigantine.shared import Shared
from brigantine.store import Store
from brigantine.weights import keep, written
from onnx import TensorProto, helper, numpy_helper

from tests.scribble import scribble_model

ON_CPU = SessionOptions(device="cpu")
CANNOT = "each worker has weights of its own"
SHIPPED = ("mnist", "shakespeare")
WORKER = """
import json
import re
import sys
from pathlib import Path

from brigantine.model import Model
from brigantine.session import Session, SessionOptions
from tests.service.test_weights import fed, hashed

session = Session.open(Model.open(Path(sys.argv[1])), SessionOptions(device="cpu"))
bits = hashed(session.run(fed(session.model)))
mapped = re.findall(r" (\\d+) +(/\\S+/weights)$", Path("/proc/self/maps").read_text(), re.M)
print(json.dumps([bits, sorted(set(map(tuple, mapped)))]))
"""
WRITER = """
import time
from pathlib import Path
from sys import argv

from brigantine.weights import written


def write(folder):
    (folder / "half.onnx").touch()
    print("begun", flush=True)
    time.sleep(60)


written(Path(argv[1]), 0, write)
"""


@pytest.fixture
def several(shared: Shared) -> Shared:
    """The folder of a service with more than one worker."""
    shared.weights.mkdir()
    return shared


def fed(model: Model) -> dict[str, np.ndarray]:
    """Three rows for each of a model's inputs: of a language model five tokens, behind nothing."""
    rng = np.random.default_rng(0)
    sizes = {"batch": 3, "sequence": 5, "past_sequence": 0, "total_sequence": 5}
    rows: dict[str, np.ndarray] = {}
    for spec in model.manifest.inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        whole = 1 if spec.name == "attention_mask" else rng.integers(10, size=shape)
        random = rng.standard_normal(shape, np.float32)
        rows[spec.name] = (
            random if spec.dtype == "float32" else np.broadcast_to(whole, shape).astype(spec.dtype)
        )
    return rows


def hashed(made: Mapping[str, np.ndarray]) -> str:
    whole = b"".join(name.encode() + values.tobytes() for name, values in sorted(made.items()))
    return hashlib.sha256(whole).hexdigest()


def product(folder: Path, numbers: int, seed: int = 0) -> Model:
    """y [N, 160] = x matrix + first[label] + second[label], where these two have so many numbers."""
    rng = np.random.default_rng(seed)
    values = {
        "first": rng.standard_normal(numbers, np.float32),
        "matrix": rng.standard_normal((160, 160), np.float32),
        "second": rng.standard_normal(numbers, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["drawn"]),
        helper.make_node("Gather", ["first", "label"], ["one"]),
        helper.make_node("Gather", ["second", "label"], ["other"]),
        helper.make_node("Add", ["drawn", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "other"], ["y"]),
    ]
    label, x, y = (
        TensorSpec(name="label", dtype="int64", shape=("batch", 1)),
        TensorSpec(name="x", dtype="float32", shape=("batch", 160)),
        TensorSpec(name="y", dtype="float32", shape=("batch", 160)),
    )
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    infos = [helper.make_tensor_value_info(one.name, types[one.dtype], one.shape) for one in (label, x, y)]
    kept = [numpy_helper.from_array(one, name) for name, one in values.items()]
    graph = helper.make_graph(nodes, "product", infos[:2], infos[2:], kept)
    folder.mkdir(parents=True)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "model.onnx")
    files = {"model.onnx": sha256_of(folder / "model.onnx")}
    manifest = Manifest(name="product", plugin="image", files=files, inputs=(label, x), outputs=(y,))
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return Model.open(folder)


def alone(model: Model, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """What the only worker of a service makes of it."""
    with monkeypatch.context() as patch:
        patch.delenv("_BRIGANTINE_SHARED_DIR")
        return hashed(Session.open(model, SessionOptions(device="cpu", **options)).run(fed(model)))


def kept(shared: Shared) -> list[Path]:
    """The files that are kept, each with the name of its model; not what says why they could not be."""
    files = [file for file in shared.weights.rglob("*") if file.is_file() and file.suffix != ".refused"]
    return sorted(file.relative_to(shared.weights) for file in files)


@pytest.mark.parametrize("name", SHIPPED)
def test_two_processes_map_one_file_and_make_the_bits_of_one_that_is_alone(
    name: str, several: Shared, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    path = Store().find()[name].path

    def worker() -> list[Any]:
        command = [sys.executable, "-c", WORKER, path]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    first, second = worker(), worker()
    monkeypatch.delenv("_BRIGANTINE_SHARED_DIR")
    own = worker()

    assert first == second
    assert first[0] == second[0] == own[0]
    assert own[1] == []
    [[_, file]] = first[1]
    whole = sum(one.stat().st_size for one in Path(file).parent.iterdir())
    graph = (path / "model.onnx").stat().st_size
    assert graph < whole < _ROOM * graph


def test_what_is_kept_is_written_once_and_what_is_broken_not_used(
    tmp_path: Path, several: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model = product(tmp_path / "product", 2**15)
    expected = alone(model, monkeypatch)
    first = Session.open(model, ON_CPU)
    graph, file = (several.weights / one for one in kept(several))
    before = file.stat()
    second = Session.open(model, ON_CPU)

    assert (graph.name, file.name) == ("plain.onnx", "weights")
    assert file.stat() == before
    graph.write_bytes(b"no graph any more")
    third = Session.open(model, ON_CPU)
    assert CANNOT in caplog.text and "plain.onnx" in caplog.text
    assert {hashed(session.run(fed(model))) for session in (first, second, third)} == {expected}


@pytest.mark.parametrize(("heads", "file"), [(4, "in_rows.onnx"), (2, "in_blocks.onnx")])
def test_a_language_model_attends_as_it_did(
    heads: int, file: str, tmp_path: Path, several: Shared, monkeypatch: pytest.MonkeyPatch
):
    """Without blocks where its heads are small, in blocks where they have 128 numbers."""
    shape: dict[str, Any] = {"hidden_size": 256, "num_attention_heads": heads, "num_key_value_heads": 2}
    model = Model.open(scribble_model(tmp_path, intermediate_size=256, **shape))
    expected = alone(model, monkeypatch)

    assert hashed(Session.open(model, ON_CPU).run(fed(model))) == expected
    assert file in {one.name for one in kept(several)}


def test_what_was_replaced_is_removed_and_goes_on_where_it_is_mapped(
    tmp_path: Path, several: Shared, monkeypatch: pytest.MonkeyPatch
):
    before, after = (product(tmp_path / str(seed), 2**15, seed) for seed in (0, 1))
    old = Session.open(before, ON_CPU)
    new = Session.open(after, ON_CPU)

    assert {file.parts[1].partition("-")[0] for file in kept(several)} == {after.digest}
    for session in (old, new):
        assert hashed(session.run(fed(before))) == alone(session.model, monkeypatch)


def test_a_setting_that_changes_the_graph_has_a_file_of_its_own(
    several: Shared, monkeypatch: pytest.MonkeyPatch
):
    model = Model.open(Store().find()["mnist"].path)
    for plain in (True, False, True):
        options = SessionOptions(device="cpu", plain_convolutions=plain)
        made = hashed(Session.open(model, options).run(fed(model)))
        assert made == alone(model, monkeypatch, plain_convolutions=plain)
        assert len(kept(several)) == 2


def test_weights_that_would_lie_across_are_not_shared(
    tmp_path: Path, several: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model = product(tmp_path / "product", 2**15 + 1)

    assert hashed(Session.open(model, ON_CPU).run(fed(model))) == alone(model, monkeypatch)
    assert CANNOT in caplog.text and "64 bytes" in caplog.text
    assert kept(several) == []


def test_without_room_each_has_its_own(
    tmp_path: Path, several: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("brigantine.opening._ROOM", 10**15)
    model = product(tmp_path / "product", 2**15)

    assert hashed(Session.open(model, ON_CPU).run(fed(model))) == alone(model, monkeypatch)
    assert CANNOT in caplog.text and "give it more room" in caplog.text
    assert kept(several) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_what_cannot_be_kept_is_computed_in_no_other_way(
    name: str, several: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Not as the file has it, which could perhaps be kept, and has other bits than one alone."""
    model = Model.open(Store().find()[name].path)
    expected = alone(model, monkeypatch)
    kept_in: list[Path] = []

    def fail_once(options: Any, graph: Path) -> None:
        keep(options, graph if kept_in else graph / "no" / "folder")
        kept_in.append(graph)

    monkeypatch.setattr("brigantine.opening.keep", fail_once)
    for _ in range(3):
        assert hashed(Session.open(model, ON_CPU).run(fed(model))) == expected
    assert (kept(several), len(kept_in)) == ([], 1), "who comes later hears that it could not be done"
    assert caplog.text.count(CANNOT) == 3


def test_a_graph_that_cannot_be_loaded_is_refused_as_ever(tmp_path: Path, several: Shared):
    model = product(tmp_path / "product", 2**15)
    model.graph.write_bytes(b"no graph")
    with pytest.raises(Exception, match="cannot load it"):
        Session.open(model, ON_CPU)
    assert kept(several) == []


def test_one_alone_keeps_nothing(tmp_path: Path, shared: Shared):
    model = product(tmp_path / "product", 2**15)
    Session.open(model, ON_CPU)
    assert not shared.weights.exists()


def test_what_was_not_finished_is_written_anew(tmp_path: Path):
    folder = tmp_path / "model" / "digest"

    def fail(begun: Path) -> None:
        (begun / "half.onnx").touch()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        written(folder, 0, fail)
    with pytest.raises(OSError, match="no more"):
        written(folder, 0, fail)
    assert [one.name for one in folder.parent.iterdir()] == ["digest.refused"]
    (folder.parent / "digest.refused").unlink()

    command = [sys.executable, "-c", WRITER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"begun\n"
        killed.kill()
    assert len(list(folder.parent.iterdir())) == 1

    model = helper.make_model(helper.make_graph([], "nothing", [], []))
    assert written(folder, 0, lambda begun: onnx.save(model, begun / "whole.onnx")).name == "whole.onnx"
    assert list(folder.parent.iterdir()) == [folder]


def test_several_at_once_write_it_once(tmp_path: Path):
    folder, begun, found = tmp_path / "model" / "digest", [], []
    model = helper.make_model(helper.make_graph([], "nothing", [], []))

    def write(to: Path) -> None:
        begun.append(to)
        onnx.save(model, to / "whole.onnx")

    threads = [threading.Thread(target=lambda: found.append(written(folder, 0, write))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(begun), found) == (1, [folder / "whole.onnx"] * 8)


def test_who_takes_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "_PATIENCE_S", 0.05)
    folder = tmp_path / "model" / "digest"
    command = [sys.executable, "-c", WRITER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"begun\n"
        try:
            with pytest.raises(TimeoutError, match=r"another worker has been at it for 0\.05 s"):
                written(folder, 0, lambda _: None)
        finally:
            other.kill()


def test_where_nothing_can_be_locked_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    begin = time.monotonic()
    with pytest.raises(OSError, match="No locks available"):
        written(tmp_path / "model" / "digest", 0, lambda _: None)
    assert time.monotonic() - begin < weights._PATIENCE_S / 2
