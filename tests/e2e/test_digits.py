"""Someone else's eyes: a classifier that has nothing of ours in it reads the digits that the service draws."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from openai import OpenAI
from PIL import Image
from torch import nn
from torch.nn import functional

from tests.mnist import HAVE_MNIST, NO_MNIST, RAW

pytestmark = pytest.mark.skipif(not HAVE_MNIST, reason=NO_MNIST)


def read_idx(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 28, 28] f32 in 0..1 and labels [N], from the original files (16 and 8 bytes of header)."""
    images = np.fromfile(RAW / f"{split}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.fromfile(RAW / f"{split}-labels-idx1-ubyte", np.uint8, offset=8)
    return torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Beside the server's threads, two of PyTorch's are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reader(one_thread: None) -> nn.Module:
    """Two strided convolutions, trained for two epochs on real MNIST, never on anything generated."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    images, labels = read_idx("train")
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    steps = 2 * len(images) // 256
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (256,))
        loss = functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(reader: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return (reader(images).argmax(1) == labels).float().mean().item()


def test_the_reader_reads_real_digits(reader: nn.Module):
    assert accuracy(reader, *read_idx("t10k")) >= 0.985


def test_it_reads_the_label_asked_for_in_98_of_100_images(client: OpenAI, reader: nn.Module):
    pixels: list[np.ndarray] = []
    for label in range(10):
        answer = client.images.generate(prompt="", n=100, extra_body={"label": label, "seed": label})
        for image in answer.data or []:
            pixels.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(image.b64_json or "")))))
    images = torch.from_numpy(np.stack(pixels)).float()[:, None] / 255  # [1000, 1, 28, 28]

    assert accuracy(reader, images, torch.arange(10).repeat_interleave(100)) >= 0.98
