"""The classic: both networks fully connected (Goodfellow et al. 2014, arXiv 1406.2661), with labels (Mirza 2014)."""

import math

import torch
from torch import Tensor, nn

from .contract import Discriminator, Generator


class MlpGenerator(Generator):
    """z and an embedded label through hidden layers that double in width, LeakyReLU between, tanh at the end.

    With width 256 on MNIST: 100 (+ label) - 256 - 512 - 1024 - 784.
    """

    def __init__(
        self, z_dim: int, classes: int, image_shape: tuple[int, int, int], width: int, label_dim: int
    ) -> None:
        super().__init__(z_dim, classes, image_shape)
        self.embed = nn.Embedding(classes, label_dim)
        self.layers = nn.Sequential(
            nn.Linear(z_dim + label_dim, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(2 * width, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(4 * width, math.prod(image_shape)),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = torch.cat([z, self.embed(label)], dim=1)  # [N, z_dim + label_dim]
        return self.layers(x).unflatten(1, self.image_shape)  # [N, C, H, W], -1..1


class MlpDiscriminator(Discriminator):
    """The flat image and an embedded label through hidden layers that halve in width, with dropout.

    With width 128 on MNIST: 784 (+ label) - 512 - 256 - 128 - 1. Dropout keeps it from learning the training
    images by heart long before the generator has caught up.
    """

    def __init__(self, classes: int, image_shape: tuple[int, int, int], width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, 50)
        self.layers = nn.Sequential(
            nn.Linear(math.prod(image_shape) + 50, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(4 * width, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        x = torch.cat([images.flatten(1), self.embed(label)], dim=1)  # [N, C*H*W + 50]
        return self.layers(x).squeeze(1)  # [N]
