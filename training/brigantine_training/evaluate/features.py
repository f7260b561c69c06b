"""The feature space of the scores: a classifier trained once for each data set, then kept.

Kept under the user's cache folder, by the checksum of the data and of the recipe: other data or
another recipe is another file, so a score is never read in the wrong space. Another machine rounds
otherwise and trains a slightly different classifier: compare scores by the floor beside them.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from ..data import Dataset
from ..networks import classifier
from ..networks.classifier import Classifier
from . import augment
from .augment import augmented
from .cache import kept

__all__ = ["Recipe", "classifier_of", "features_of", "scaled"]

_BATCH = 500
"""Images through the network at once when it does not learn."""


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained. Any change here makes a new feature space, and scores that do not
    compare with those of the old one."""

    epochs: int = 4
    batch: int = 256
    learning_rate: float = 4e-3
    """The peak of a one-cycle schedule."""
    weight_decay: float = 0.02
    seed: int = 0

    def key(self, dataset: Dataset) -> str:
        """What the cached files of this recipe, as the code has it now, on this data are named by."""
        identity = json.dumps([asdict(self), dataset.sha256, _source()], sort_keys=True)
        return f"{dataset.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _source() -> str:
    """The code that makes the classifier: other code may make another feature space."""
    modules = (augment, classifier, sys.modules[__name__])
    return "".join(token for module in modules for token in _tokens(inspect.getsource(module)))


def _tokens(source: str) -> Iterator[str]:
    """What is code in `source`, the same for every Python: no comment, and no string that begins a line."""
    begins = True
    for kind, text, *_ in tokenize.generate_tokens(io.StringIO(source).readline):
        if kind in (tokenize.COMMENT, tokenize.NL):
            continue
        if not (begins and kind == tokenize.STRING):
            yield text
        begins = kind in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def classifier_of(dataset: Dataset, recipe: Recipe, console: Console) -> Classifier:
    """The data set's classifier, in eval mode: from the cache, or trained now (some two minutes)."""
    network = _untrained(dataset, recipe)
    file = f"classifier-{recipe.key(dataset)}.pt"
    network.load_state_dict(kept(file, lambda: _trained(dataset, recipe, console).state_dict()))
    return network.eval()


def features_of(network: Classifier, images: Tensor) -> Tensor:
    """Images uint8 [N, C, H, W] to features float32 [N, D]. Float32 throughout: scores must repeat."""
    with torch.inference_mode():
        return torch.cat([network.features(scaled(batch)) for batch in images.split(_BATCH)])


def scaled(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] to float32 in -1..1, laid out as the convolutions are fastest on a CPU."""
    return images.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def _untrained(dataset: Dataset, recipe: Recipe) -> Classifier:
    # The first weights must not depend on what ran before, nor disturb what runs after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = Classifier(dataset.image_shape, len(dataset.labels))
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks it


def _trained(dataset: Dataset, recipe: Recipe, console: Console) -> Classifier:
    network = _untrained(dataset, recipe).train()
    rng = torch.Generator().manual_seed(recipe.seed)
    steps = recipe.epochs * (len(dataset.train_images) // recipe.batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.25
    )
    batches = _batches(dataset, recipe, rng)
    label = f"training the evaluation classifier of {dataset.name} (once)"
    for images, labels in track(batches, label, total=steps, console=console, transient=True):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def _batches(dataset: Dataset, recipe: Recipe, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented images float32 [B, C, H, W] in -1..1 with their labels int64 [B], epoch after epoch."""
    whole = len(dataset.train_images) // recipe.batch * recipe.batch
    for _ in range(recipe.epochs):
        order = torch.randperm(len(dataset.train_images), generator=rng)[:whole]
        for chosen in order.split(recipe.batch):
            images = augmented(dataset.train_images[chosen].float() / 255, rng) * 2 - 1
            yield images.contiguous(memory_format=torch.channels_last), dataset.train_labels[chosen]
