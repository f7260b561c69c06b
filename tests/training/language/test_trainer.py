"""One step of a language model after the other, and exactly the same steps after a resumption."""

from __future__ import annotations

import pytest
import torch
from brigantine_training.config import LanguageConfig
from brigantine_training.language.trainer import LanguageTrainer
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
