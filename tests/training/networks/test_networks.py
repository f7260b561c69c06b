"""Every network keeps the contract, and the sizes that its docstring states."""

import pytest
import torch
from brigantine_training.config import GanConfig, make_config, read_preset
from brigantine_training.networks import build_discriminator, build_generator

from tests.training.digits import tiny_config

GENERATORS = ("dcgan", "mlp")
DISCRIMINATORS = ("residual", "dcgan", "mlp")


def _preset(name: str) -> GanConfig:
    config = make_config(read_preset(name), name)
    assert isinstance(config, GanConfig)
    return config


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 16)])
def test_a_generator_draws_images_of_its_shape_in_range(name: str, shape: tuple[int, int, int]):
    generator = build_generator(tiny_config(generator=name), 10, shape)
    assert (generator.z_dim, generator.classes, generator.image_shape) == (4, 10, shape)
    images = generator(torch.randn(5, 4), torch.arange(5))
    assert images.shape == (5, *shape)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_hears_noise_and_label(name: str):
    generator = build_generator(tiny_config(generator=name), 10, (1, 8, 8)).eval()
    z = torch.randn(2, 4)
    images = generator(z[[0, 0, 1]], torch.tensor([3, 4, 3]))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 16)])
def test_a_discriminator_gives_one_logit_an_image(name: str, shape: tuple[int, int, int]):
    discriminator = build_discriminator(tiny_config(discriminator=name), 10, shape).eval()
    images = torch.randn(1, *shape).expand(2, *shape)
    logits = discriminator(images, torch.tensor([3, 4]))
    assert logits.shape == (2,)
    assert logits[0] != logits[1], "the label must count"


def test_the_shipped_generator_fits_into_four_megabytes():
    config = _preset("mnist")
    assert _parameters(build_generator(config, 10, (1, 28, 28))) * 4 <= 4e6
    assert _parameters(build_discriminator(config, 10, (1, 28, 28))) < 120_000


def test_the_classic_has_the_classic_layers():
    config = _preset("mnist-mlp")
    generator = build_generator(config, 10, (1, 28, 28))
    sizes = [layer.out_features for layer in generator.modules() if isinstance(layer, torch.nn.Linear)]
    assert (generator.z_dim, sizes) == (100, [256, 512, 1024, 784])
