"""The buckets of a GPU, with their buffers on the CPU."""

from pathlib import Path

import numpy as np
import pytest
from brigantine.buckets import Buckets
from brigantine.model import Model
from brigantine.session import Session

from tests.tiny import tiny_batch, tiny_model


@pytest.fixture
def buckets(tmp_path: Path) -> tuple[Session, Buckets]:
    """What a GPU gets, with its buffers on the CPU: batches of 1, 2, 4 and 6."""
    import onnxruntime

    model = Model.open(tiny_model(tmp_path, max_batch=6))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    assert Buckets.fit(model)
    return Session.open(model), Buckets(onnxruntime, engine, model, "cpu")


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


def test_a_bucket_whose_bits_are_not_those_of_the_largest_is_not_used(tmp_path: Path):
    import onnxruntime

    model = Model.open(tiny_model(tmp_path, swayed=True, max_batch=6))
    engine = onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])

    buckets = Buckets(onnxruntime, engine, model, "cpu")

    assert buckets.sizes == [6]
    assert buckets.size_for(1) == 6


def test_an_answer_is_not_overwritten_by_the_next(buckets: tuple[Session, Buckets]):
    plain, padded = buckets
    first = padded.run(tiny_batch(3))["image"]
    padded.run(
        {name: values + 1 for name, values in tiny_batch(3).items() if name == "z"}
        | {"label": np.zeros(3, int)}
    )

    assert np.array_equal(first, plain.run(tiny_batch(3))["image"])


def test_a_model_with_another_dynamic_dimension_has_no_buckets(tmp_path: Path):
    outputs = [{"name": "image", "dtype": "uint8", "shape": ["batch", "height", 8, 1]}]

    assert not Buckets.fit(Model.open(tiny_model(tmp_path, outputs=outputs)))
