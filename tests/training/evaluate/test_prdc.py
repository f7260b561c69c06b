"""Precision, recall, density and coverage, held to the package of their authors."""

import pytest
import torch
from brigantine_training.evaluate.prdc import Manifold, prdc
from torch import Tensor


def _cloud(seed: int, count: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_they_agree_with_the_authors_package(capsys: pytest.CaptureFixture[str]):
    from prdc import compute_prdc

    # More rows than one chunk, and sets of different size.
    real, generated = _cloud(0, 1500), _cloud(1, 1100, spread=0.8)
    theirs = compute_prdc(real.numpy(), generated.numpy(), nearest_k=5)
    ours = prdc(Manifold.of(real), Manifold.of(generated))
    assert ours._asdict() == pytest.approx(theirs, abs=2e-3)


def test_one_mode_of_two_is_precise_and_covers_half():
    near, far = _cloud(0, 200), _cloud(1, 200) + 100
    scores = prdc(Manifold.of(torch.cat([near, far])), Manifold.of(_cloud(2, 200)))
    assert scores.precision > 0.8
    assert 0.3 < scores.recall < 0.5
    assert 0.4 < scores.coverage <= 0.5


def test_what_lies_elsewhere_scores_nothing():
    assert prdc(Manifold.of(_cloud(0, 50)), Manifold.of(_cloud(1, 50) + 1000)) == (0, 0, 0, 0)


def test_copies_score_everything():
    real = Manifold.of(_cloud(0, 50))
    scores = prdc(real, real)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
