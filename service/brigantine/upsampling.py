"""Upsampling layers, written as ONNX Runtime's CPU kernels are fastest at them.

ONNX Runtime computes a transposed convolution as one matrix product for each picture, and adds up what overlaps. Its
plain convolutions have better kernels, which leave out padding, too. So the output is divided into phases, by its row
and its column modulo the stride. Each of them is a plain convolution of the input with every stride-th row and column
of the kernel.

Along an axis on which a phase's kernel has two places a and b, two of its outputs are made by three products instead of
four (Winograd's F(2, 2), https://arxiv.org/abs/1509.09308):

    y0 = a x0 + b x1 = a (x0 - x1) + (a + b) x1
    y1 = a x1 + b x2 = (a + b) x1 - b (x1 - x2)

Small pictures of many channels save more in tiles, see `tiles`.

On a GPU the same phases serve another end: cuDNN's transposed convolutions add up in any order, so that the same input
may give other bits in each run; its plain ones do not. Sums take no less time than products there, so none are saved.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .folding import fold
from .rewriting import Writer, graph_with, prune
from .tiles import Axis, Tiled, Weight

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["rewritten"]

_ACTIVATIONS = ("LeakyRelu", "Relu")
_BLOCK = 16
"""Channels that the kernels take at a time: with others they would compute what nobody asks for."""
_DEEP, _WIDE = 128, 8
"""Channels and columns from which on it pays to save products along rows, too: sums take time as well."""
_FEWEST, _MOST, _HEAVIEST = 7, 100, 2**20
"""Tiles: the shortest side, the most pixels and the most values of kernels. Of fewer pixels or heavier kernels a single
picture would take longer by them, of more pixels a batch."""


def rewritten(path: Path, for_gpu: bool = False) -> bytes | None:
    """The graph in `path` with its transposed convolutions as plain ones: the same function, up to rounding.

    None where there is nothing to rewrite: no such layer that would gain, branches, weights in other files, more than
    256 MiB, or a processor for whose kernels the above does not hold. Which layers are rewritten is up to the graph
    alone, so that all processes compute the same bits.

    Args:
        path: an ONNX file.
        for_gpu: as a GPU is to compute it.

    Raises:
        Exception: the file cannot be read, or is no graph of which onnx can infer shapes.
    """
    if not (for_gpu or platform.machine() in ("x86_64", "AMD64")):
        return None
    proto = graph_with(path, "ConvTranspose")
    if proto and not for_gpu:
        fold(proto.graph)
    return proto.SerializeToString() if proto and _Rewriting(proto, for_gpu).run() else None


@dataclass(frozen=True)
class _Cut:
    """What a product reads of one axis of the input: sums of neighbours at every `step`-th place, from `start` on."""

    factors: tuple[int, ...] = (1,)
    start: int = 0
    step: int = 1

    @property
    def taps(self) -> tuple[int, ...]:
        """The kernel of the convolution that makes it."""
        return (0,) * max(self.start, 0) + self.factors

    @property
    def pads(self) -> tuple[int, int]:
        """With which that convolution's output is as long as the input divided by `step`."""
        before = max(-self.start, 0)
        return before, max(len(self.taps) - self.step - before, 0)


@dataclass(frozen=True)
class _Product:
    """Along one axis, one of the convolutions that make a phase of the output."""

    mix: Weight
    """[taps, K]: how often each place of the layer's kernel counts in each of its own."""
    pads: tuple[int, int] = (0, 0)
    cut: _Cut = _Cut()


@dataclass(frozen=True)
class _Phase:
    """Every stride-th place of the output along one axis, in one part, or in two: even places and odd ones."""

    products: list[_Product]
    parts: list[list[int]]
    """Which products each part is the sum of."""
    shared: int = 0
    """The product that is in each part, and brings the bias."""

    @classmethod
    def of(cls, kernel: int, taps: list[int], after: int, halved: bool) -> _Phase:
        """The phase whose output j takes the inputs up to j + after by these places of the kernel."""
        mix = np.eye(kernel, dtype=np.float32)[taps]
        if not halved:
            return cls([_Product(mix, (len(taps) - 1 - after, after))], [[0]])
        a, b = mix[:1], mix[1:]
        even, odd = _Cut((1, -1), after - 1, 2), _Cut((1, -1), after, 2)
        products = [_Product(a, cut=even), _Product(a + b, cut=_Cut((1,), after, 2)), _Product(-b, cut=odd)]
        return cls(products, [[0, 1], [2, 1]], shared=1)


def _phases(kernel: int, stride: int, pads: tuple[int, int], halves: bool) -> list[_Phase]:
    """The phases along one axis, or none where they are not as long as the input.

    Output stride * j + a takes input j + e - t by the tap k + stride * t, with k = (a + pad) mod stride and
    e = (a + pad) div stride.
    """
    places = range(pads[0], pads[0] + stride)
    taps = [list(range(place % stride, kernel, stride))[::-1] for place in places]
    ends = [place // stride for place in places]
    if kernel - stride != sum(pads) or any(end >= len(own) for own, end in zip(taps, ends, strict=True)):
        return []
    halves = halves and all(len(own) == 2 for own in taps)
    return [_Phase.of(kernel, own, end, halves) for own, end in zip(taps, ends, strict=True)]


@dataclass(frozen=True)
class _Layer:
    """A transposed convolution, dense and of known size."""

    source: str
    """float32 [N, C_in, H, W]"""
    weight: Weight
    """[C_in, C_out, K_h, K_w]"""
    bias: list[str]
    """Its name, if there is one: [C_out]."""
    height: int
    """H, as is `width` W."""
    width: int
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    """Above, to the left, below and to the right; what is added to the output counts as less padding."""
    saves: bool
    """Whether products shall be saved by sums."""

    @property
    def point(self) -> bool:
        """Whether it enlarges single pixels, which is a matrix product."""
        return self.height == self.width == 1 and not any(self.pads)

    @cached_property
    def rows(self) -> list[_Phase]:
        halves = self.saves and self.height % 2 == 0
        return _phases(self.weight.shape[2], self.strides[0], (self.pads[0], self.pads[2]), halves)

    @cached_property
    def columns(self) -> list[_Phase]:
        halves = self.saves and self.width % 2 == 0 and self.width >= _WIDE and len(self.weight) >= _DEEP
        return _phases(self.weight.shape[3], self.strides[1], (self.pads[1], self.pads[3]), halves)

    @cached_property
    def axes(self) -> tuple[Axis, Axis] | None:
        """Where it is made in tiles, which pays for small pictures and kernels that stay in the cache."""
        top, left, bottom, right = self.pads
        rows = Axis.of(self.weight.shape[2], self.strides[0], (top, bottom), self.height)
        columns = Axis.of(self.weight.shape[3], self.strides[1], (left, right), self.width)
        if not (self.saves and rows and columns and len(self.weight) >= _DEEP):
            return None
        values = rows.kernels * columns.kernels * self.weight[:, :, 0, 0].size
        fits = min(self.height, self.width) >= _FEWEST and self.height * self.width <= _MOST
        return (rows, columns) if fits and values <= _HEAVIEST else None

    @property
    def woven(self) -> bool:
        """Whether it shall be made of phases. Where nothing overlaps they have nothing over a matrix product."""
        full = not self.saves or not any(channels % _BLOCK for channels in self.weight.shape[:2])
        overlaps = self.weight.shape[2] > self.strides[0] or self.weight.shape[3] > self.strides[1]
        fits = self.saves or self.strides[0] == self.strides[1]
        return full and overlaps and fits and bool(self.rows) and bool(self.columns)


class _Rewriting:
    """One graph, whose layers are replaced in place."""

    def __init__(self, proto: ModelProto, for_gpu: bool) -> None:
        import onnx  # noqa: PLC0415

        self._for_gpu = for_gpu
        self._helper, self._arrays = onnx.helper, onnx.numpy_helper
        self._graph = proto.graph
        self._writer = Writer(proto.graph, "upsampling")
        self._cuts: dict[tuple[str, _Cut, _Cut], str] = {}
        del proto.graph.value_info[:]  # some are of before the inputs were changed
        known = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        self._shapes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*known.input, *known.value_info)
        }
        self._given = {
            value.name for value in self._graph.input
        }  # weights, too, that may be others in each run
        weights = (weight for weight in self._graph.initializer if weight.name not in self._given)
        self._weights = {weight.name: weight for weight in weights}

    def run(self) -> bool:
        """Replace every layer that shall be; whether there was one."""
        waiting = list(self._graph.node)
        count = len(waiting)
        while waiting:
            node = waiting.pop(0)
            layer = self._layer(node)
            if layer is None or not (layer.point or layer.woven):
                self._writer.nodes.append(node)
                continue
            activation = self._activation(node.output[0], waiting)
            if activation is not None:
                waiting.remove(activation)
            output = (activation or node).output[0]
            if layer.point:
                self._spread(layer, activation, output)
            elif self._for_gpu:
                self._stack(layer, activation, output)
            elif layer.axes:
                self._tile(layer, activation, output, waiting)
            else:
                self._weave(layer, activation, output)
        del self._graph.node[:]
        self._graph.node.extend(self._writer.nodes)
        prune(self._graph)
        return len(self._writer.nodes) > count

    def _layer(self, node: NodeProto) -> _Layer | None:
        if node.op_type != "ConvTranspose" or node.domain or node.input[1] not in self._weights:
            return None
        has: dict[str, Any] = {item.name: self._helper.get_attribute_value(item) for item in node.attribute}
        weight = self._arrays.to_array(self._weights[node.input[1]])
        shape = self._shapes.get(node.input[0], [])
        usual = has.get("auto_pad", b"NOTSET") == b"NOTSET" and "output_shape" not in has
        dense = has.get("group", 1) == 1 and set(has.get("dilations", [1])) == {1}
        known = (
            len(shape) == 4 and min(shape[1:]) > 0 and all(name in self._weights for name in node.input[1:])
        )
        if not (usual and dense and known and weight.dtype == np.float32):
            return None
        top, left, bottom, right = has.get("pads", [0] * 4)
        below, beside = has.get("output_padding", [0, 0])
        strides = tuple(has.get("strides", [1, 1]))
        pads = top, left, bottom - below, right - beside
        return _Layer(
            node.input[0], weight, list(node.input[2:]), shape[2], shape[3], strides, pads, not self._for_gpu
        )

    def _reader(self, name: str, later: Sequence[NodeProto]) -> NodeProto | None:
        """What alone reads `name`."""
        readers = [node for node in later if name in node.input]
        shown = any(output.name == name for output in self._graph.output)
        return None if len(readers) != 1 or shown else readers[0]

    def _activation(self, name: str, later: Sequence[NodeProto]) -> NodeProto | None:
        """What alone reads `name` and can be part of a convolution's kernel."""
        reader = self._reader(name, later)
        return reader if reader and not reader.domain and reader.op_type in _ACTIVATIONS else None

    def _spread(self, layer: _Layer, activation: NodeProto | None, output: str) -> None:
        """[N, C_in, 1, 1] -> [N, C_out, K_h, K_w]"""
        channels, height, width = layer.weight.shape[1:]
        bias = [self._arrays.to_array(self._weights[name]).repeat(height * width) for name in layer.bias]
        row = self._writer.add("Flatten", [layer.source], axis=1)
        constants = [
            self._writer.constant(values)
            for values in (np.reshape(layer.weight, (len(layer.weight), -1)), *bias)
        ]
        made = self._activated(activation, self._writer.add("Gemm", [row, *constants]))
        self._writer.shaped(made, 0, channels, height, width, output=output)

    def _stack(self, layer: _Layer, activation: NodeProto | None, output: str) -> None:
        """Make the phases, one behind the other in the channels, and let one node put all pixels in their places."""
        phases = [self._phase(layer, row, column)[0][0] for row, column in product(layer.rows, layer.columns)]
        made = self._activated(activation, self._writer.add("Concat", phases, axis=1))
        self._writer.add("DepthToSpace", [made], output, blocksize=layer.strides[0], mode="DCR")

    def _tile(
        self, layer: _Layer, activation: NodeProto | None, output: str, waiting: Sequence[NodeProto]
    ) -> None:
        """Make it in tiles.

        Where few channels are made of the pixels next, then before they are put in their places: fewer are to be.
        """
        assert layer.axes
        reader = self._narrow(output, waiting)
        narrow = self._layer(reader) if reader else None
        tiled = Tiled(
            self._writer,
            layer.weight,
            self._arrays.to_array(self._weights[layer.bias[0]]) if layer.bias else None,
            *layer.axes,
            activated=lambda name: self._activated(activation, name),
            matrix=np.reshape(narrow.weight, (len(narrow.weight), -1)) if narrow else None,
        )
        last = tiled.write(layer.source)
        if not reader or not narrow:
            self._writer.add("Transpose", [last], output, perm=[0, 3, 1, 2])
            return
        taps = np.reshape(np.eye(narrow.weight[0].size, dtype=np.float32), (-1, *narrow.weight.shape[1:]))
        reader.input[0] = self._writer.add("Transpose", [last], perm=[0, 3, 1, 2])
        reader.input[1] = self._writer.constant(taps)  # it adds up what overlaps

    def _narrow(self, name: str, later: Sequence[NodeProto]) -> NodeProto | None:
        """The transposed convolution that alone reads `name`, if all its products are fewer than half of its inputs."""
        reader = self._reader(name, later)
        layer = self._layer(reader) if reader else None
        few = layer is not None and not layer.woven and 2 * layer.weight[0].size <= len(layer.weight)
        return reader if few else None

    def _weave(self, layer: _Layer, activation: NodeProto | None, output: str) -> None:
        """Make the phases, and weave them: a pixel of each to a row, a row of each to a picture."""
        made = [[self._phase(layer, row, column) for column in layer.columns] for row in layer.rows]
        parts = [range(len(axis[0].parts)) for axis in (layer.rows, layer.columns)]
        tall, wide = layer.height // len(parts[0]), layer.width // len(parts[1])
        height, width = layer.height * layer.strides[0], layer.width * layer.strides[1]
        channels = layer.weight.shape[1]
        strips: list[str] = []
        for row, phases in product(parts[0], made):
            names = [
                self._activated(activation, phase[row][column]) for column, phase in product(parts[1], phases)
            ]
            last = [self._writer.add("Transpose", [name], perm=[0, 2, 3, 1]) for name in names]
            pixels = [self._writer.shaped(name, 0, tall * wide, 1, channels) for name in last]
            strips.append(
                self._writer.shaped(self._writer.add("Concat", pixels, axis=2), 0, tall, 1, width * channels)
            )
        rows = self._writer.shaped(self._writer.add("Concat", strips, axis=2), 0, height, width, channels)
        self._writer.add("Transpose", [rows], output, perm=[0, 3, 1, 2])

    def _phase(self, layer: _Layer, row: _Phase, column: _Phase) -> list[list[str]]:
        """The parts of one phase by row and column, each [N, C_out, H or H / 2, W or W / 2]."""
        lines: list[list[str]] = []
        for i, above in enumerate(row.products):
            made: list[str] = []
            for j, beside in enumerate(column.products):
                kernel = np.einsum("yk,xl,iokl->oiyx", above.mix, beside.mix, layer.weight)
                bias = layer.bias if (i, j) == (row.shared, column.shared) else []
                pads = [above.pads[0], beside.pads[0], above.pads[1], beside.pads[1]]
                cut = self._cut(layer, above.cut, beside.cut)
                made.append(self._writer.add("Conv", [cut, self._writer.constant(kernel), *bias], pads=pads))
            lines.append([self._sum([made[j] for j in part]) for part in column.parts])
        columns = range(len(column.parts))
        return [[self._sum([lines[i][j] for i in part]) for j in columns] for part in row.parts]

    def _sum(self, names: Sequence[str]) -> str:
        return names[0] if len(names) == 1 else self._writer.add("Add", names)

    def _cut(self, layer: _Layer, row: _Cut, column: _Cut) -> str:
        """A convolution of each channel alone, for which there is a kernel, too."""
        if row == column == _Cut():
            return layer.source
        known = layer.source, row, column
        if known not in self._cuts:
            channels = len(layer.weight)
            kernel = np.tile(np.outer(row.taps, column.taps).astype(np.float32), (channels, 1, 1, 1))
            self._cuts[known] = self._writer.add(
                "Conv",
                [layer.source, self._writer.constant(kernel)],
                pads=[row.pads[0], column.pads[0], row.pads[1], column.pads[1]],
                strides=[row.step, column.step],
                group=channels,
            )
        return self._cuts[known]

    def _activated(self, activation: NodeProto | None, name: str) -> str:
        if activation is None:
            return name
        made = self._writer.add(activation.op_type, [name])
        self._writer.nodes[-1].attribute.extend(activation.attribute)
        return made
