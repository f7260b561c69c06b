"""How good a generator is: fidelity, diversity and memorisation, each beside what real data scores."""

from __future__ import annotations

from .features import Recipe
from .judge import SAMPLES, Judge, open_judge
from .measures import MEASURES, Measure
from .report import print_report
from .scores import RESAMPLES, Sampler, score_sampler
from .served import ServedSampler

__all__ = [
    "MEASURES",
    "RESAMPLES",
    "SAMPLES",
    "Judge",
    "Measure",
    "Recipe",
    "Sampler",
    "ServedSampler",
    "open_judge",
    "print_report",
    "score_sampler",
]
