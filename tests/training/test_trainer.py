"""One step after the other, and exactly the same steps after a resumption."""

from typing import Any

import pytest
import torch
from brigantine_training.config import GanConfig
from brigantine_training.errors import DivergedError
from brigantine_training.runtime import choose_runtime
from brigantine_training.trainer import GanTrainer

from tests.training.digits import tiny_config, tiny_dataset

NO_PENALTY: dict[str, Any] = {"loss": "non-saturating", "gamma_start": 0, "gamma_end": 0}
RECIPES = {
    "mnist": tiny_config(),
    "mnist-dcgan": tiny_config(discriminator="dcgan", **NO_PENALTY),
    "mnist-mlp": tiny_config(generator="mlp", discriminator="mlp", **NO_PENALTY),
    "bfloat16": tiny_config(precision="bfloat16"),
}


def _trainer(config: GanConfig) -> GanTrainer:
    return GanTrainer(config, tiny_dataset(), choose_runtime(config))


def _steps(trainer: GanTrainer, first: int, last: int) -> None:
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
    second = _trainer(config.changed(seed=9))  # nothing of its own start may survive
    second.load_state_dict(state)
    _steps(second, 10, 20)

    for part in ("generator", "discriminator"):
        for name, value in getattr(straight, part).state_dict().items():
            assert torch.equal(value, getattr(second, part).state_dict()[name]), f"{part}.{name}"
    for name, value in straight.ema.generator.state_dict().items():
        assert torch.equal(value, second.ema.generator.state_dict()[name]), f"ema.{name}"
    assert (second.steps, second.images_seen) == (20, 160)


def test_both_networks_learn():
    config = tiny_config()
    trainer = _trainer(config)
    before = {name: value.clone() for name, value in trainer.generator.named_parameters()}
    before |= {name: value.clone() for name, value in trainer.discriminator.named_parameters()}
    _steps(trainer, 0, 3)  # the block's first convolution learns once its second is no longer zero
    after = {**dict(trainer.generator.named_parameters()), **dict(trainer.discriminator.named_parameters())}
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []


def test_losses_are_means_since_they_were_last_taken():
    config = tiny_config()
    trainer = _trainer(config)
    _steps(trainer, 0, 2)
    losses = trainer.take_losses()
    assert all(value > 0 for value in losses)
    assert trainer.take_losses() == (0, 0, 0)


def test_numbers_that_are_not_finite_stop_the_run_with_a_remedy():
    config = tiny_config()
    trainer = _trainer(config)
    with torch.no_grad():
        next(trainer.discriminator.parameters()).fill_(float("nan"))
    _steps(trainer, 0, 1)
    with pytest.raises(DivergedError, match=r"by step 1.*gamma_start"):
        trainer.take_losses()


def test_weights_that_are_not_finite_are_not_kept():
    trainer = _trainer(tiny_config())
    trainer.check_finite()
    with torch.no_grad():
        next(trainer.ema.generator.parameters())[0] = torch.nan
    with pytest.raises(DivergedError, match="expected finite weights"):
        trainer.check_finite()


def test_the_grid_is_ten_by_ten_of_the_same_noise():
    trainer = _trainer(tiny_config())
    grid = trainer.draw_samples()
    assert grid.shape == (100, 1, 8, 8)
    assert 0 <= grid.min() <= grid.max() <= 1
    assert torch.equal(grid, trainer.draw_samples())
