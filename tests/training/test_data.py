"""Data sets: read as they are, with a checksum, and an order that only the seed decides."""

from pathlib import Path

import pytest
import torch
from brigantine_training.data import Sampler, open_dataset
from brigantine_training.errors import DataError

from tests.mnist import DATA_DIR, HAVE_MNIST, NO_MNIST
from tests.training.digits import write_idx


def test_mnist_is_read_with_its_labels(tmp_path: Path):
    write_idx(tmp_path, images=20)
    dataset = open_dataset("mnist", tmp_path)
    assert dataset.train_images.shape == dataset.test_images.shape == (20, 1, 28, 28)
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.train_labels.tolist() == [*range(10), *range(10)]
    assert dataset.train_labels.dtype == torch.int64
    assert dataset.labels[7] == "7 - seven"
    assert dataset.image_shape == (1, 28, 28)


def test_the_checksum_is_of_the_raw_files(tmp_path: Path):
    write_idx(tmp_path)
    before = open_dataset("mnist", tmp_path).sha256
    file = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    assert open_dataset("mnist", tmp_path).sha256 != before


@pytest.mark.skipif(not HAVE_MNIST, reason=NO_MNIST)
def test_the_real_mnist():
    dataset = open_dataset("mnist", DATA_DIR)
    assert dataset.train_images.shape == (60000, 1, 28, 28)
    assert dataset.test_images.shape == (10000, 1, 28, 28)
    assert dataset.sha256 == "5f617ad9c21210b06a84523faa989821d0a8990220a212a11ee8fb720bfd5317"


def test_a_missing_folder_says_what_was_expected_where(tmp_path: Path):
    with pytest.raises(DataError) as error:
        open_dataset("mnist", tmp_path / "nowhere")
    message = str(error.value)
    assert str(tmp_path / "nowhere" / "MNIST" / "raw") in message
    assert "train-images-idx3-ubyte" in message
    assert "--data-dir" in message
    assert "download=True" in message


@pytest.mark.parametrize("body", [b"<html>404</html>", b"", b"\0\0\x08\x03\0\0"])
def test_a_file_that_is_no_idx_file_is_named(tmp_path: Path, body: bytes):
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(body)
    with pytest.raises(DataError, match="damaged or no idx file"):
        open_dataset("mnist", tmp_path)


def test_an_unknown_data_set_names_the_known_ones(tmp_path: Path):
    with pytest.raises(DataError, match="Known: mnist"):
        open_dataset("minst", tmp_path)


def test_an_epoch_shows_every_image_once():
    sampler = Sampler(images=12, batch_images=4, seed=0)
    epochs = [torch.cat([sampler.next() for _ in range(3)]) for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_sampler_goes_on_where_another_stood():
    first = Sampler(images=10, batch_images=4, seed=0)
    for _ in range(5):
        first.next()
    second = Sampler(images=10, batch_images=4, seed=1)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        assert torch.equal(first.next(), second.next())


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(DataError, match="batch_images=4 is more than the 3 images"):
        Sampler(images=3, batch_images=4, seed=0)
