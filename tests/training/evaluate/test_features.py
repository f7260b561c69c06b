"""The feature space: trained once, kept, and not thrown off by a haze that no eye sees."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from brigantine_training.data import open_dataset
from brigantine_training.errors import ScoringError
from brigantine_training.evaluate import features
from brigantine_training.evaluate.cache import kept
from brigantine_training.evaluate.features import Recipe, classifier_of, features_of
from brigantine_training.networks.classifier import Classifier
from rich.console import Console
from torch import Tensor

from tests.mnist import DATA_DIR, HAVE_MNIST, NO_MNIST
from tests.training.shapes import QUICK, shapes_dataset

QUIET = Console(quiet=True)


def _accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return float((classifier.head(features_of(classifier, images)).argmax(1) == labels).float().mean())


def test_it_is_trained_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = shapes_dataset()
    first = classifier_of(dataset, QUICK, QUIET)
    assert _accuracy(first, dataset.test_images, dataset.test_labels) > 0.95
    assert [path.name for path in empty_cache.iterdir()] == [f"classifier-{QUICK.key(dataset)}.pt"]
    monkeypatch.setattr(features, "_trained", None)
    again = classifier_of(dataset, QUICK, QUIET)
    assert torch.equal(features_of(first, dataset.test_images), features_of(again, dataset.test_images))


def test_training_repeats_and_leaves_the_callers_draws_alone(empty_cache: Path):
    dataset = shapes_dataset(train=100)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = classifier_of(dataset, QUICK, QUIET)
    assert torch.equal(torch.rand(1), expected)
    for path in empty_cache.iterdir():
        path.unlink()
    again = classifier_of(dataset, QUICK, QUIET)
    assert torch.equal(first.head.weight, again.head.weight)


def test_other_data_another_recipe_or_other_code_is_another_file(monkeypatch: pytest.MonkeyPatch):
    dataset = shapes_dataset(train=3, test=3)
    keys = {
        QUICK.key(dataset),
        replace(QUICK, seed=1).key(dataset),
        QUICK.key(replace(dataset, sha256="6" * 64)),
    }
    assert len(keys) == 3
    assert QUICK.key(dataset) == Recipe(epochs=4, batch=50).key(dataset)
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: f"{source(module)}\n'''Prose.'''  # and more")
    assert QUICK.key(dataset) in keys
    monkeypatch.setattr(inspect, "getsource", lambda module: f"{source(module)}\nmore = 1")
    assert QUICK.key(dataset) not in keys


def test_a_damaged_file_of_the_cache_is_named_with_the_remedy(empty_cache: Path):
    empty_cache.mkdir(parents=True)
    (empty_cache / "classifier-x.pt").write_bytes(b"damaged")

    with pytest.raises(ScoringError, match=r"classifier-x\.pt: damaged .*Delete it"):
        kept("classifier-x.pt", dict)


@pytest.mark.skipif(not HAVE_MNIST, reason=NO_MNIST)
def test_a_haze_over_real_digits_is_overlooked():
    mnist = open_dataset("mnist", DATA_DIR)
    few = replace(mnist, train_images=mnist.train_images[:2000], train_labels=mnist.train_labels[:2000])
    classifier = classifier_of(few, Recipe(epochs=4, batch=100), QUIET)
    images, labels = mnist.test_images[:1000], mnist.test_labels[:1000]
    hazy = (images.float() * 237 / 255 + 18).to(torch.uint8)
    clear = _accuracy(classifier, images, labels)
    assert clear > 0.9
    assert _accuracy(classifier, hazy, labels) > clear - 0.02
