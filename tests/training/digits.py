"""Small stand-ins for MNIST: quick to train on, and idx files that torchvision reads like the real ones."""

from pathlib import Path

import torch
from brigantine_training.config import GanConfig, make_config
from brigantine_training.data import Dataset


def tiny_dataset(images: int = 64, side: int = 8) -> Dataset:
    """Noise with labels, [N, 1, side, side]."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 1, side, side), generator=random, dtype=torch.uint8)
    label = torch.arange(images) % 10
    return Dataset(
        name="mnist",
        train_images=pixels,
        train_labels=label,
        test_images=pixels,
        test_labels=label,
        labels=tuple(str(i) for i in range(10)),
        sha256="0" * 64,
        licence="none",
        source="noise",
    )


def tiny_config(**changes: object) -> GanConfig:
    """The recipe with the smallest networks, on one CPU thread, in float32, ended by steps."""
    values = {
        "dataset": "mnist",
        "generator_width": 2,
        "discriminator_width": 2,
        "z_dim": 4,
        "batch_images": 8,
        "budget_seconds": None,
        "budget_steps": 20,
        "threads": 1,
        "device": "cpu",
        "precision": "float32",
    }
    config = make_config({**values, **changes}, "a test")
    assert isinstance(config, GanConfig)
    return config


def write_idx(data_dir: Path, images: int = 40) -> None:
    """Four idx files with noise, [images, 28, 28], where torchvision looks for MNIST."""
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    for part in ("train", "t10k"):
        pixels = torch.randint(0, 256, (images, 28, 28), generator=random, dtype=torch.uint8)
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, images, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.numpy().tobytes())
        header = b"".join(n.to_bytes(4, "big") for n in (0x801, images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(i % 10 for i in range(images)))
