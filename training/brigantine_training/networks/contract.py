"""What every network of a GAN here looks like from outside."""

from torch import Tensor, nn


class Generator(nn.Module):
    """Draws images from noise and a label: forward(z [N, z_dim], label [N] int64) -> [N, C, H, W], -1..1."""

    def __init__(self, z_dim: int, classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.classes = classes
        self.image_shape = image_shape
        """(C, H, W)"""

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        raise NotImplementedError


class Discriminator(nn.Module):
    """Scores images under their label: forward(images [N, C, H, W], label [N] int64) -> logits [N], real is high."""

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        raise NotImplementedError
