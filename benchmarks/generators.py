"""Generators to measure with: as large as real ones, untrained, the same at each call.

    python benchmarks/generators.py g64 DIR

writes the model folder DIR/g64. `g64` draws 64x64 RGB with 7.4 M parameters, `g256` 256x256 RGB with 28 M. Their
weights are random, but their pictures are neither grey nor noise: kernels are smooth and every layer is normalised.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from brigantine.model import GRAPH, MANIFEST, Manifest, Model, TensorSpec, sha256_of
from brigantine.session import Session, SessionOptions
from torch import Tensor, nn

Z_DIM = 100
CHANNELS = {"g64": (768, 384, 192, 96, 3), "g256": (1536, 768, 384, 256, 128, 64, 3)}
"""Channels of each layer; the first draws 4x4, each other one doubles the side."""
_MAX_BATCH = 64
_CONTRAST = 0.8


class Dcgan(nn.Module):
    """The generator of DCGAN (https://arxiv.org/abs/1511.06434), with its pixels as they are served."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(Z_DIM, channels[0], 4, bias=False)]
        for before, after in pairwise(channels):
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            _smooth(up)
            layers += [nn.BatchNorm2d(before, momentum=None), nn.ReLU(), up]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(channels[-1], momentum=None))
        self.side = 4 * 2 ** (len(channels) - 1)

    def forward(self, z: Tensor) -> Tensor:
        drawn = torch.tanh(_CONTRAST * self.layers(z[:, :, None, None]))  # [N, C, H, W], -1..1
        pixels = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1)  # uint8 [N, H, W, C]


def _smooth(layer: nn.ConvTranspose2d) -> None:
    """Make it enlarge by bilinear interpolation, with a little noise."""
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        mixed = torch.randn(*layer.weight.shape[:2], 1, 1)
        layer.weight.copy_(mixed * torch.outer(line, line) + 0.03 * torch.randn_like(layer.weight))


def make(name: str, folder: Path) -> Path:
    """Write the model `name` below `folder`, unless it is there; its path."""
    path = folder / name
    if not (path / MANIFEST).exists():
        torch.manual_seed(0)
        network = Dcgan(CHANNELS[name])
        with torch.inference_mode():
            for _ in range(4):  # the statistics that the normalisation is folded with
                network(torch.randn(32, Z_DIM))
        network.eval()
        path.mkdir(parents=True, exist_ok=True)
        onnx.save(_graph_of(network), path / GRAPH)
        (path / MANIFEST).write_text(_manifest(name, network, path / GRAPH).model_dump_json(indent=2))
        _check(network, path)
    return path


def _graph_of(network: Dcgan) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated calls
        program = torch.onnx.export(
            network,
            (torch.zeros(2, Z_DIM),),
            dynamo=True,
            opset_version=20,
            input_names=["z"],
            output_names=["image"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # with dynamo=True there is always one
    onnx.checker.check_model(program.model_proto)
    return program.model_proto


def _manifest(name: str, network: Dcgan, graph: Path) -> Manifest:
    return Manifest(
        name=name,
        plugin="image",
        description="Untrained; for measuring only.",
        files={GRAPH: sha256_of(graph)},
        inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", Z_DIM)),),
        outputs=(TensorSpec(name="image", dtype="uint8", shape=("batch", network.side, network.side, 3)),),
        max_batch=_MAX_BATCH,
    )


def _check(network: Dcgan, path: Path) -> None:
    """The graph draws what the network draws, and not in grey."""
    z = np.random.default_rng(1).standard_normal((7, Z_DIM), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(z)).numpy()
    pixels = Session.open(Model.open(path), SessionOptions(device="cpu")).run({"z": z})["image"]
    differing, contrast = (pixels != expected).mean(), pixels.std() / 127.5
    assert differing < 1e-3 and contrast > 0.2, (
        f"{path}: {differing:.2%} of pixels differ, std {contrast:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=CHANNELS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(make(options.name, options.folder))


if __name__ == "__main__":
    main()
