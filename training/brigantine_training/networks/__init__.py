"""The networks: one architecture a file, behind the contract in `contract.py`."""

from ..config import GanConfig
from .contract import Discriminator, Generator
from .dcgan import DcganDiscriminator, DcganGenerator
from .mlp import MlpDiscriminator, MlpGenerator
from .residual import ResidualDiscriminator

__all__ = ["Discriminator", "Generator", "build_discriminator", "build_generator"]


def build_generator(config: GanConfig, classes: int, image_shape: tuple[int, int, int]) -> Generator:
    """The generator that `config` names, freshly initialised. image_shape: (C, H, W)"""
    make = {"dcgan": DcganGenerator, "mlp": MlpGenerator}[config.generator]
    return make(config.z_dim, classes, image_shape, config.generator_width, config.label_dim)


def build_discriminator(config: GanConfig, classes: int, image_shape: tuple[int, int, int]) -> Discriminator:
    """The discriminator that `config` names, freshly initialised. image_shape: (C, H, W)"""
    if config.discriminator == "mlp":
        return MlpDiscriminator(
            classes, image_shape, config.discriminator_width, config.discriminator_dropout
        )
    make = {"dcgan": DcganDiscriminator, "residual": ResidualDiscriminator}[config.discriminator]
    return make(classes, image_shape, config.discriminator_width)
