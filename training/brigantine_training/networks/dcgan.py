"""DCGAN (Radford, Metz, Chintala 2016, arXiv 1511.06434) for images whose sides are multiples of four."""

import torch
from torch import Tensor, nn

from .contract import Discriminator, Generator


class DcganGenerator(Generator):
    """z and an embedded label, projected to a quarter of the size, then two strided transposed convolutions.

    With width 32 on MNIST: 110 -> 128 x 7 x 7 -> 64 x 14 x 14 -> 1 x 28 x 28, 0.82 M parameters.
    """

    def __init__(
        self, z_dim: int, classes: int, image_shape: tuple[int, int, int], width: int, label_dim: int
    ) -> None:
        super().__init__(z_dim, classes, image_shape)
        channels, height, width_pixels = image_shape
        self.embed = nn.Embedding(classes, label_dim)
        self.start_shape = (4 * width, height // 4, width_pixels // 4)
        self.project = nn.Linear(
            z_dim + label_dim, 4 * width * (height // 4) * (width_pixels // 4), bias=False
        )
        self.layers = nn.Sequential(
            nn.BatchNorm2d(4 * width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        _initialise(self)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = torch.cat([z, self.embed(label)], dim=1)  # [N, z_dim + label_dim]
        x = self.project(x).unflatten(1, self.start_shape)  # [N, 4w, H/4, W/4]
        return self.layers(x)  # [N, C, H, W], -1..1


class DcganDiscriminator(Discriminator):
    """Two strided convolutions and one that sees the whole map; the label enters as one more image plane."""

    def __init__(self, classes: int, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, width_pixels = image_shape
        self.plane_shape = (1, height, width_pixels)
        self.embed = nn.Embedding(classes, height * width_pixels)
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 1, (height // 4, width_pixels // 4)),
        )
        _initialise(self)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        plane = self.embed(label).unflatten(1, self.plane_shape)  # [N, 1, H, W]
        return self.layers(torch.cat([images, plane], dim=1)).flatten()  # [N]


def _initialise(network: nn.Module) -> None:
    """The paper's start: weights from N(0, 0.02), scales of the batch norms from N(1, 0.02), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
