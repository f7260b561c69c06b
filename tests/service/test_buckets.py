"""The buckets of a GPU, with their buffers on the CPU."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brigantine.buckets import Buckets, _Bucket
from brigantine.model import Arrays, Model
from brigantine.session import Session, SessionOptions
from numpy.typing import NDArray

from tests.tiny import SIDE, Z_DIM, tiny_batch, tiny_model

FLOPS = 2 * Z_DIM * SIDE * SIDE
"""Of the tiny model, for one row."""


@pytest.fixture(params=[True, False], ids=["recorded", "eager"])
def buckets(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Session, Buckets]:
    """What a GPU gets, with its buffers on the CPU: batches of 1, 2, 4 and 6."""
    import onnxruntime

    model = Model.open(tiny_model(tmp_path, max_batch=6))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    assert Buckets.fit(model)
    plain = Session.open(model, SessionOptions(device="cpu"))
    return plain, Buckets(onnxruntime, engine, model, "cpu", request.param)


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6], [6, 1, 5, 2], [7, 13, 12]])
def test_padded_batches_give_what_plain_ones_give(buckets: tuple[Session, Buckets], sizes: list[int]):
    plain, padded = buckets
    for size in sizes:
        image = padded.run(tiny_batch(size))["image"]
        assert np.array_equal(image, plain.run(tiny_batch(size))["image"])


def test_a_batch_is_padded_to_the_next_bucket(buckets: tuple[Session, Buckets]):
    plain, padded = buckets
    assert [padded.size_for(rows) for rows in range(1, 8)] == [1, 2, 4, 4, 6, 6, 6]
    assert [plain.bucket(rows) for rows in range(1, 8)] == list(range(1, 8))


@pytest.mark.parametrize(("filling", "kept"), [(1e15, [6]), (3.5 * FLOPS, [4]), (FLOPS, [1])])
def test_where_the_size_sways_bits_one_that_fills_a_gpu_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: float, kept: list[int]
):
    import onnxruntime

    monkeypatch.setattr("brigantine.buckets._FILLING_FLOPS", filling)
    model = Model.open(tiny_model(tmp_path, swayed=True, max_batch=6))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])

    buckets = Buckets(onnxruntime, engine, model, "cpu")

    assert buckets.sizes == kept
    assert buckets.size_for(1) == kept[0]
    assert len(buckets.run(tiny_batch(9))["image"]) == 9


def test_sizes_that_agree_with_it_are_used_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    model = Model.open(tiny_model(tmp_path, max_batch=16))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    honest = _Bucket.run

    def rounded(bucket: Any, arrays: Arrays, rows: int) -> dict[str, NDArray[Any]]:
        """As if a kernel for 8 and more rows rounded in another way."""
        made = honest(bucket, arrays, rows)
        return {name: values ^ (len(bucket._staging["z"]) >= 8) for name, values in made.items()}

    monkeypatch.setattr(_Bucket, "run", rounded)
    monkeypatch.setattr("brigantine.buckets._FILLING_FLOPS", 2 * FLOPS)
    assert Buckets(onnxruntime, engine, model, "cpu").sizes == [1, 2, 4]
    monkeypatch.setattr("brigantine.buckets._FILLING_FLOPS", 8 * FLOPS)
    assert Buckets(onnxruntime, engine, model, "cpu").sizes == [8, 16]


def test_what_makes_other_bits_each_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    model = Model.open(tiny_model(tmp_path, max_batch=8))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    honest, rng = _Bucket.run, np.random.default_rng(0)
    assert Buckets(onnxruntime, engine, model, "cpu").reproducible

    def shaken(bucket: Any, arrays: Arrays, rows: int) -> dict[str, NDArray[Any]]:
        """As if a kernel of the largest added up in any order."""
        made = honest(bucket, arrays, rows)
        odd = rng.integers(2, dtype=np.uint8) if len(bucket._staging["z"]) == 8 else 0
        return {name: values ^ odd for name, values in made.items()}

    monkeypatch.setattr(_Bucket, "run", shaken)
    monkeypatch.setattr("brigantine.buckets._FILLING_FLOPS", 2 * FLOPS)
    seen = [Buckets(onnxruntime, engine, model, "cpu") for _ in range(20)]
    assert not all(buckets.reproducible for buckets in seen)
    assert all(buckets.sizes[:3] == [1, 2, 4] for buckets in seen)


def test_an_answer_is_not_overwritten_by_the_next(buckets: tuple[Session, Buckets]):
    plain, padded = buckets
    first = padded.run(tiny_batch(3))["image"]
    padded.run(
        {name: values + 1 for name, values in tiny_batch(3).items() if name == "z"}
        | {"label": np.zeros(3, int)}
    )

    assert np.array_equal(first, plain.run(tiny_batch(3))["image"])


@pytest.mark.parametrize("shape", [(2, Z_DIM - 1), (1, Z_DIM), (2,), (2, 1, Z_DIM)])
def test_a_shape_that_does_not_fit_is_refused_by_the_name_of_the_input(
    buckets: tuple[Session, Buckets], shape: tuple[int, ...]
):
    batch = {"label": np.zeros(2, int), "z": np.zeros(shape, np.float32)}
    told = rf"input z: expected the shape \[2, {Z_DIM}\], got {re.escape(str(list(shape)))}"
    with pytest.raises(ValueError, match=told):
        buckets[1].run(batch)


def test_a_model_with_another_dynamic_dimension_has_no_buckets(tmp_path: Path):
    outputs = [{"name": "image", "dtype": "uint8", "shape": ["batch", "height", 8, 1]}]

    assert not Buckets.fit(Model.open(tiny_model(tmp_path, outputs=outputs)))
