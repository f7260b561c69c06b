"""Upsampling in tiles: transposed convolutions whose outputs are made of two inputs along each axis, by fewer products.

Two neighbours x0 and x1 of the input make `stride` outputs a x0 + b x1, each with an a and a b of its own. What three
such pairs make of four inputs takes four products instead of six (Winograd's F(3, 2),
https://arxiv.org/abs/1509.09308):

    y0 = a (x0 - x2) + p + q       p = (a + b) / 2 (x1 + x2)
    y1 = p - q                     q = (a - b) / 2 (x2 - x1)
    y2 = b (x3 - x1) + p + q

and what two make of three takes three instead of four. Before the first input and behind the last one there is
nothing, so that an output at the edge is one product. Along both axes that is some half of the products. The sums of
inputs and those of products are products with small matrices, the large products plain convolutions of single
pixels, of all pictures at once: that way each kernel is read once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .rewriting import Writer

__all__ = ["Axis", "Tiled", "Weight"]

Weight = NDArray[np.float32]

_READ = {
    2: [[1, -1, 0], [0, 1, 0], [0, -1, 1]],
    3: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
}
"""For tiles of as many pairs the sums of the inputs that are read: [products, inputs]."""
_MIXED = {2: [[1, 0], [1, 1], [0, 1]], 3: [[1, 0], [0.5, 0.5], [0.5, -0.5], [0, 1]]}
"""With what they are multiplied: [products, (a, b)]."""
_MADE = {2: [[1, 1, 0], [0, 1, 1]], 3: [[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 1]]}
"""The sums of products that are made: [pairs, products]."""
_SHARED = 1
"""The product that is once in each of these sums, and so can bring the bias."""


@dataclass(frozen=True)
class _Part:
    """Outputs along an axis, in the order [tiles, pairs, phases]."""

    read: Weight
    """[tiles, products, inputs]"""
    mixed: Weight
    """[products, phases, K]: how often each place of the layer's kernel counts."""
    made: Weight
    """[pairs, products]"""
    shared: list[int]
    """The products that bring the bias."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tiles, pairs and phases."""
        return len(self.read), len(self.made), self.mixed.shape[1]

    @property
    def length(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Axis:
    """One axis of such a layer: its tiles, and both edges, each of `pad` outputs."""

    tiles: _Part
    edges: _Part
    pad: int

    @property
    def inputs(self) -> int:
        return self.tiles.read.shape[2]

    @property
    def kernels(self) -> int:
        """How many there are, each of one place."""
        return sum(part.mixed.shape[0] * part.mixed.shape[1] for part in (self.tiles, self.edges))

    @classmethod
    def of(cls, kernel: int, stride: int, pads: tuple[int, int], length: int) -> Axis | None:
        """None where outputs are made of more or fewer inputs, or tiles do not fit.

        Args:
            kernel: how long it is.
            stride: of the layer.
            pads: before and after.
            length: of the input.
        """
        pad = pads[0]
        size = next((size for size in (3, 2) if length > 1 and (length - 1) % size == 0), 0)
        if not size or kernel != 2 * stride or pads != (pad, pad) or stride != 2 * pad:
            return None
        # Inputs j and j + 1 make the outputs from stride * j + pad on: a is the kernel's end, b its beginning.
        b, a = np.split(np.eye(kernel, dtype=np.float32), 2)
        tiles = (length - 1) // size
        read = np.zeros((tiles, size + 1, length), np.float32)
        for tile in range(tiles):
            read[tile, :, tile * size : (tile + 1) * size + 1] = _READ[size]
        mixed = np.einsum("nt,tpk->npk", np.array(_MIXED[size], np.float32), np.stack([a, b]))
        ends = np.eye(length, dtype=np.float32)[None, [0, -1]]
        made = np.array(_MADE[size], np.float32)
        edges = _Part(ends, np.stack([b[pad:], a[:pad]]), np.eye(2, dtype=np.float32), [0, 1])
        return cls(_Part(read, mixed, made, [_SHARED]), edges, pad)


@dataclass(frozen=True)
class Tiled:
    """Such a layer, and what comes of its outputs before they are put in their places."""

    writer: Writer
    """Of the graph."""
    weight: Weight
    """[C_in, C_out, K_h, K_w]"""
    bias: Weight | None
    """[C_out]"""
    rows: Axis
    columns: Axis
    activated: Callable[[str], str]
    """Writes the activation of a tensor, whose name it takes; gives the result's."""
    matrix: Weight | None
    """With which the pixels are multiplied then, if with any: [C_out, C]"""

    def write(self, source: str) -> str:
        """[N, C_in, H, W] -> [N, stride * H, stride * W, C]"""
        depth, height, width = len(self.weight), self.rows.inputs, self.columns.inputs
        last = self.writer.add("Transpose", [source], perm=[0, 2, 3, 1])
        flat = self.writer.shaped(last, 0, height, width * depth)
        strips: list[str] = []
        for row in (self.rows.tiles, self.rows.edges):
            read = math.prod(row.read.shape[:2])
            strip = self.writer.shaped(self._read(flat, row, axis=1), 0, read, width, depth)
            tiles, edges = (
                self._block(self._read(strip, column, axis=2), row, column)
                for column in (self.columns.tiles, self.columns.edges)
            )
            strips.append(self._between(tiles, edges, self.columns.pad, axis=2))
        return self._between(strips[0], strips[1], self.rows.pad, axis=1)

    def _read(self, source: str, part: _Part, axis: Literal[1, 2]) -> str:
        """What a part reads of an axis, the last but one: [..., inputs, C] -> [..., tiles * products, C]"""
        matrix = np.reshape(part.read, (-1, part.read.shape[2]))
        if np.count_nonzero(matrix) == len(matrix):  # inputs as they are
            return self.writer.add("Gather", [source, self.writer.constant(matrix.argmax(axis=1))], axis=axis)
        return self.writer.add("MatMul", [self.writer.constant(matrix), source])

    def _block(self, source: str, row: _Part, column: _Part) -> str:
        """[N, tiles * products, tiles * products, C_in] -> [N, outputs, outputs, C]"""
        (tall, above, over), (wide, beside, along) = row.shape, column.shape
        m, n, (depth, channels) = len(row.mixed), len(column.mixed), self.weight.shape[:2]
        apart = self.writer.shaped(source, 0, tall, m, wide, n * depth)
        together = self.writer.add("Transpose", [apart], perm=[0, 1, 3, 2, 4])
        made = self._products(self.writer.shaped(together, 1, -1, 1, m * n * depth), row, column)
        sums = np.kron(row.made, column.made)
        if len(sums) < m * n:
            made = self.writer.shaped(made, -1, m * n, over * along * channels)
            made = self.writer.add("MatMul", [self.writer.constant(sums), made])
        made = self.activated(self.writer.shaped(made, -1, tall, wide, above, beside, over, along, channels))
        if self.matrix is not None:
            made = self.writer.add("MatMul", [made, self.writer.constant(self.matrix)])
            channels = self.matrix.shape[1]
        woven = self.writer.add("Transpose", [made], perm=[0, 1, 3, 5, 2, 4, 6, 7])
        return self.writer.shaped(woven, -1, row.length, column.length, channels)

    def _products(self, source: str, row: _Part, column: _Part) -> str:
        """[1, pixels, 1, products * C_in] -> [1, pixels, 1, products * phases * C_out]"""
        kernel = np.einsum("ypk,xql,iokl->yxpqoi", row.mixed, column.mixed, self.weight)
        inputs = [self.writer.add("Transpose", [source], perm=[0, 3, 1, 2])]
        inputs.append(self.writer.constant(np.reshape(kernel, (-1, len(self.weight), 1, 1))))
        if self.bias is not None:
            once = np.zeros(kernel.shape[:-1], np.float32)
            once[np.ix_(row.shared, column.shared)] = self.bias
            inputs.append(self.writer.constant(once.ravel()))
        made = self.writer.add("Conv", inputs, group=len(row.mixed) * len(column.mixed))
        return self.writer.add("Transpose", [made], perm=[0, 2, 3, 1])

    def _between(self, tiles: str, edges: str, pad: int, axis: Literal[1, 2]) -> str:
        """Put the tiles between the first `pad` outputs of the edges and the last."""
        first, last = (
            self.writer.add("Gather", [edges, self.writer.constant(np.arange(pad) + start)], axis=axis)
            for start in (0, pad)
        )
        return self.writer.add("Concat", [first, tiles, last], axis=axis)
