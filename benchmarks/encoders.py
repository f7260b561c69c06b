"""Time and size of our PNG writer beside Pillow's, interleaved, in one thread.

python benchmarks/encoders.py --data-dir ../shared/data
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from brigantine.png import encode_png
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
ROUNDS = 7


def pillow(level: int) -> Callable[[Pixels], bytes]:
    def encode(pixels: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    return encode


ENCODERS = {"brigantine": encode_png, "Pillow 1": pillow(1), "Pillow 6": pillow(6)}


def pictures(data_dir: Path) -> dict[str, list[Pixels]]:
    """Handwritten digits, photographs, and the photographs enlarged."""
    digits = np.fromfile(data_dir / "MNIST/raw/t10k-images-idx3-ubyte", np.uint8, offset=16).reshape(
        -1, 28, 28, 1
    )
    with tarfile.open(data_dir / "cifar10.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".jpg")][:200]
        photos = [Image.open(io.BytesIO(_read(archive, member))).convert("RGB") for member in members]
    return {
        "28x28x1 digits": list(digits[:200]),
        "32x32x3 photographs": [np.asarray(photo) for photo in photos],
        "256x256x3 photographs, enlarged": [np.asarray(photo.resize((256, 256))) for photo in photos[:20]],
    }


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def microseconds(encode: Callable[[Pixels], bytes], images: list[Pixels]) -> float:
    begin = time.perf_counter()
    for pixels in images:
        encode(pixels)
    return 1e6 * (time.perf_counter() - begin) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    print(
        "| pictures | encoder | us each | bytes each | time / Pillow 1 | bytes / Pillow 1 |\n|---|---|---|---|---|---|"
    )
    for what, images in pictures(parser.parse_args().data_dir).items():
        times: dict[str, list[float]] = {name: [] for name in ENCODERS}
        for _ in range(ROUNDS):
            for name, encode in ENCODERS.items():
                times[name].append(microseconds(encode, images))
        sizes = {
            name: statistics.fmean(len(encode(pixels)) for pixels in images)
            for name, encode in ENCODERS.items()
        }
        for name in ENCODERS:
            us, size = statistics.median(times[name]), sizes[name]
            ratio = us / statistics.median(times["Pillow 1"]), size / sizes["Pillow 1"]
            print(f"| {what} | {name} | {us:.0f} | {size:.0f} | {ratio[0]:.2f} | {ratio[1]:.2f} |")


if __name__ == "__main__":
    main()
