"""The evaluation CNN: the eye that every generator of a data set is judged by."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """A small convolutional classifier whose penultimate layer is the feature space of the scores.

    Three 3x3 convolutions and one dense layer, each with batch normalisation and ReLU, then a linear
    head. Batch normalisation before the last ReLU gives every feature the same scale, so that no
    feature counts for more in a distance because its weights happened to grow.

    Args:
        image_shape: (C, H, W) of the images; H and W at least 4.
        classes: how many classes the head tells apart.
        width: channels of the first convolution; the others have twice as many.
        features: size of the feature space.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], classes: int, width: int = 32, features: int = 128
    ) -> None:
        super().__init__()
        channels, height, _width = image_shape
        cells = ((height // 2 + 1) // 2) * ((_width // 2 + 1) // 2)
        self.body = nn.Sequential(
            *_conv(channels, width),  # [N, width, H, W]
            nn.MaxPool2d(2),  # [N, width, H/2, W/2]
            *_conv(width, 2 * width),  # [N, 2 width, H/2, W/2]
            *_conv(2 * width, 2 * width, stride=2),  # [N, 2 width, H/4, W/4]
            nn.Flatten(),
            nn.Linear(2 * width * cells, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(features, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in -1..1 to features [N, features], each >= 0."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] in -1..1 to logits [N, classes]."""
        return self.head(self.body(images))


def _conv(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
