"""Drawing from an exported model as the service does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from brigantine.model import Model, TensorSpec
from brigantine.session import Session
from brigantine_training.errors import ScoringError
from brigantine_training.evaluate import ServedSampler

from tests.tiny import Z_DIM, tiny_model


def test_it_draws_what_the_session_returns(tmp_path: Path):
    model = Model.open(tiny_model(tmp_path, max_batch=7))
    labels = torch.arange(20) % 3
    images = ServedSampler(model)(labels, 5)
    assert images.shape == (20, 1, 8, 8)
    assert images.dtype == torch.uint8
    z = np.random.default_rng(5).standard_normal((20, Z_DIM), dtype=np.float32)
    whole = Session.open(model).run({"z": z, "label": labels.numpy()})["image"]
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(whole))
    assert torch.equal(images, ServedSampler(model)(labels, 5))
    assert not torch.equal(images, ServedSampler(model)(labels, 6))


def test_what_is_no_image_model_is_refused(tmp_path: Path):
    tokens = (TensorSpec(name="tokens", dtype="int64", shape=("batch", 16)),)
    model = Model.open(tiny_model(tmp_path, inputs=tokens))
    with pytest.raises(ScoringError, match="expected an image model"):
        ServedSampler(model)
