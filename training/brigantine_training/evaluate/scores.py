"""Scores: the figures of a sampler over several resamples, with intervals, beside their floors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch
from brigantine.model import Score
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..errors import ScoringError
from .judge import Judge
from .measures import MEASURES

__all__ = ["RESAMPLES", "Sampler", "check_resamples", "score_sampler", "student_interval"]

Sampler = Callable[[Tensor, int], Tensor]
"""(labels int64 [N], seed) -> images uint8 [N, C, H, W]; the same seed draws the same images."""

RESAMPLES = 3

_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Resamples -> the 97.5% point of Student's t with one degree of freedom less."""


def score_sampler(
    sampler: Sampler, judge: Judge, console: Console, resamples: int = RESAMPLES
) -> dict[str, Score]:
    """Draw `resamples` times `judge.samples` images and measure each draw.

    Labels are drawn from the training set's, whose images are the reference: balanced labels would measure the
    label prior (0.08 of FID on MNIST's own test images) and not the images.

    Args:
        sampler: what is judged.
        judge: what it is judged by.
        console: where progress is shown.
        resamples: 2 to 10.

    Returns:
        By measure: the mean over the resamples and its 95% interval by Student's t.

    Raises:
        ScoringError: `resamples` out of its bounds.
    """
    check_resamples(resamples)
    figures: list[dict[str, float]] = []
    for seed in track(range(resamples), "evaluating", console=console, transient=True):
        labels = _drawn_labels(judge, seed)
        figures.append(judge.measure(sampler(labels, seed), labels))
    return {name: _score(name, [row[name] for row in figures], judge) for name in MEASURES}


def _drawn_labels(judge: Judge, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    labels = judge.dataset.train_labels
    return labels[torch.randperm(len(labels), generator=rng)[: judge.samples]]  # int64 [samples]


def _score(name: str, values: list[float], judge: Judge) -> Score:
    mean, low, high = student_interval(values, MEASURES[name].highest)
    return Score(value=mean, low=low, high=high, floor=round(judge.floors[name], 5), samples=judge.samples)


def check_resamples(resamples: int) -> None:
    """So many draws have an interval.

    Raises:
        ScoringError: they have none.
    """
    if resamples not in _STUDENT:
        least, most = min(_STUDENT), max(_STUDENT)
        raise ScoringError(f"resamples: expected a number from {least} to {most}, got {resamples}")


def student_interval(values: Sequence[float], highest: float) -> tuple[float, float, float]:
    """The mean of 2 to 10 draws with its 95% interval by Student's t, inside 0 and `highest`."""
    mean = statistics.fmean(values)
    reach = _STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return round(mean, 5), round(max(mean - reach, 0.0), 5), round(min(mean + reach, highest), 5)
