"""The judge and its scores: a perfect, a copying and a noisy generator each get what they deserve."""

import io
import math
import statistics

import pytest
import torch
from brigantine.model import Score
from brigantine_training.errors import ScoringError
from brigantine_training.evaluate import MEASURES, Judge, open_judge, print_report, score_sampler
from brigantine_training.evaluate import judge as judging
from rich.console import Console
from torch import Tensor

from tests.training.shapes import QUICK, draw_shapes, shapes_dataset

QUIET = Console(quiet=True)


@pytest.fixture
def judge() -> Judge:
    return open_judge(shapes_dataset(), QUIET, samples=150, recipe=QUICK)


def test_the_judge_is_kept(judge: Judge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judging, "_measure_real", None)
    again = open_judge(shapes_dataset(), QUIET, samples=150, recipe=QUICK)
    assert again.floors == judge.floors
    assert torch.equal(again.reference.held_out, judge.reference.held_out)


def test_scores_and_floors_are_of_the_same_number_of_images(judge: Judge):
    assert judge.samples == 150
    assert open_judge(shapes_dataset(), QUIET, recipe=QUICK).samples == 200
    assert set(judge.floors) == set(MEASURES)
    assert judge.floors["memorisation_auc"] == 0.5


def test_a_perfect_generator_is_at_the_floor(judge: Judge):
    scores = score_sampler(draw_shapes, judge, QUIET)
    assert list(scores) == list(MEASURES)
    assert scores["accuracy"].value > 0.95
    assert scores["fid"].value < 5 * judge.floors["fid"]
    assert 0.3 < scores["memorisation_auc"].value < 0.7
    assert {score.samples for score in scores.values()} == {150}


def test_copies_are_found_out(judge: Judge):
    def copy(labels: Tensor, seed: int) -> Tensor:
        images = judge.dataset.train_images
        chosen = [(judge.dataset.train_labels == label).nonzero()[seed, 0] for label in labels]
        return images[torch.stack(chosen)]

    assert score_sampler(copy, judge, QUIET, resamples=2)["memorisation_auc"].value == 1.0


def test_noise_scores_badly(judge: Judge):
    def noise(labels: Tensor, seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (len(labels), 1, 8, 8), generator=random, dtype=torch.uint8)

    scores = score_sampler(noise, judge, QUIET, resamples=2)
    assert scores["fid"].value > 20 * judge.floors["fid"]
    assert scores["accuracy"].value < 0.7
    assert scores["coverage"].value < 0.2


def test_the_interval_is_students_and_stays_where_values_can_be(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
):
    rows = iter([(2.0, 1.0), (3.0, 1.0), (7.0, 0.7)])

    def measure(self: Judge, images: Tensor, labels: Tensor) -> dict[str, float]:
        fid, accuracy = next(rows)
        return dict.fromkeys(MEASURES, 0.5) | {"fid": fid, "accuracy": accuracy}

    monkeypatch.setattr(Judge, "measure", measure)
    scores = score_sampler(draw_shapes, judge, QUIET)
    reach = 4.303 * statistics.stdev([2, 3, 7]) / math.sqrt(3)
    assert scores["fid"].value == pytest.approx(4)
    assert scores["fid"].high == pytest.approx(4 + reach, abs=1e-4)
    assert scores["fid"].low == 0
    assert scores["accuracy"].high == 1
    assert scores["recall"].low == scores["recall"].high == 0.5


def test_the_same_seeds_give_the_same_scores(judge: Judge):
    assert score_sampler(draw_shapes, judge, QUIET, 2) == score_sampler(draw_shapes, judge, QUIET, 2)


def test_resamples_out_of_bounds_are_refused(judge: Judge):
    with pytest.raises(ScoringError, match="expected a number from 2 to 10, got 1"):
        score_sampler(draw_shapes, judge, QUIET, resamples=1)


def test_the_report_shows_every_figure_beside_its_floor():
    said = io.StringIO()
    score = Score(value=0.31, low=0.3, high=0.32, floor=0.149, samples=10_000)
    print_report("digits", {"fid": score}, Console(width=100, file=said))
    for part in ("digits", "fid", "lower", "0.310", "0.300 - 0.320", "0.149", "10,000"):
        assert part in said.getvalue()
