"""One step of a language model after the other, and exactly the same steps after a resumption."""

from __future__ import annotations

import math

import pytest
import torch
from brigantine_training.config import LanguageConfig
from brigantine_training.errors import DivergedError
from brigantine_training.language.tokenizer import train_tokenizer
from brigantine_training.language.trainer import LanguageTrainer, scale_at
from brigantine_training.runtime import choose_runtime

from tests.training.language.plays import tiny_corpus, tiny_language_config

RECIPES = {
    "float32": tiny_language_config(),
    "bfloat16": tiny_language_config(precision="bfloat16"),
    "no dropout": tiny_language_config(dropout=0, merge_dropout=0),
}


def _trainer(config: LanguageConfig) -> LanguageTrainer:
    return LanguageTrainer(config, tiny_corpus(), choose_runtime(config))


def _steps(trainer: LanguageTrainer, first: int, last: int) -> None:
    for step in range(first, last):
        trainer.step(step / 20)


@pytest.mark.parametrize("recipe", RECIPES)
def test_ten_steps_a_resumption_and_ten_are_twenty_bit_for_bit(recipe: str):
    config = RECIPES[recipe]
    straight = _trainer(config)
    _steps(straight, 0, 20)

    first = _trainer(config)
    _steps(first, 0, 10)
    state = first.state_dict()
    second = _trainer(config)
    torch.manual_seed(9)  # nothing of its own start may survive
    second.step(0.3)
    second.load_state_dict(state)
    _steps(second, 10, 20)

    pairs = ((straight.network, second.network), (straight.ema.generator, second.ema.generator))
    for one, other in pairs:
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert (second.steps, second.tokens_seen) == (20, 20 * 4 * 32)


def test_it_learns():
    config = tiny_language_config(learning_rate=1e-2, matrix_learning_rate=2e-2, warmup=0)
    trainer = _trainer(config)
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    averaged = {name: value.clone() for name, value in trainer.ema.generator.named_parameters()}
    trainer.step(0.0)
    first = trainer.take_figures(1.0).values["loss"]
    assert first == pytest.approx(math.log(288), rel=0.05)
    _steps(trainer, 1, 20)
    trainer.take_figures(1.0)
    trainer.step(0.99)
    assert trainer.take_figures(1.0).values["loss"] < 0.8 * first
    for one, other in ((before, trainer.network), (averaged, trainer.ema.generator)):
        after = dict(other.named_parameters())
        assert [name for name, value in one.items() if torch.equal(value, after[name])] == []


def test_figures_are_means_since_they_were_last_taken():
    trainer = _trainer(tiny_language_config())
    _steps(trainer, 0, 4)
    figures = trainer.take_figures(2.0)
    assert figures.values["tokens_seen"] == 4 * 4 * 32
    assert figures.values["tokens_per_second"] == 4 * 4 * 32 / 2
    assert figures.values["matrix_learning_rate"] == pytest.approx(0.01 * scale_at(0.02, 3 / 20))
    assert figures.values["learning_rate"] == pytest.approx(3e-3 * scale_at(0.02, 3 / 20))
    assert "test_nats_per_character" not in figures.values
    assert trainer.take_figures(1.0).values["loss"] == 0
    trainer.step(0.5)
    again = trainer.take_figures(1.0).values
    assert again["tokens_per_second"] == 4 * 32
    assert again["loss"] == pytest.approx(figures.values["loss"], rel=0.1)


def test_rates_rise_and_fall_to_nothing():
    shares = [scale_at(0.1, progress) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert scale_at(0.0, 0.0) == 1


def test_samples_are_the_same_draw_each_time_and_the_held_out_text_is_measured():
    trainer = _trainer(tiny_language_config())
    sample = trainer.draw_samples()
    assert sample == trainer.draw_samples()
    trainer.step(0.5)
    figures = trainer.take_figures(1.0)
    nats = figures.values["test_nats_per_character"]
    tokens = len(trainer.tokenizer.encode(tiny_corpus().test_text).ids)
    assert nats == pytest.approx(math.log(288) * tokens / len(tiny_corpus().test_text), rel=0.02)
    assert f"test {nats:.3f} a character" in figures.words


def test_a_batch_is_shown_in_the_tokens_of_its_tokenizer():
    trainer = _trainer(tiny_language_config())
    assert trainer.shape()["tokenizer"] == train_tokenizer(tiny_corpus().train_text, 288).to_str()
    assert trainer.counts() == {
        "tokens_seen": 0, "parameters": sum(weight.numel() for weight in trainer.network.parameters())
    }  # fmt: skip


def test_numbers_that_are_not_finite_stop_the_run_with_a_remedy():
    trainer = _trainer(tiny_language_config())
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    trainer.step(0.1)
    with pytest.raises(DivergedError, match=r"by step 1.*half the learning_rate and matrix_learning_rate"):
        trainer.take_figures(1.0)


def test_weights_that_are_not_finite_are_not_kept():
    trainer = _trainer(tiny_language_config())
    trainer.check_finite()
    with torch.no_grad():
        next(trainer.ema.generator.parameters())[0] = torch.nan
    with pytest.raises(DivergedError, match="expected finite weights"):
        trainer.check_finite()
