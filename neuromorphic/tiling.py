"""Cutting layers into tiles that fit a core: in space (rows, columns) and in output channels.

A tile is a box of neurons [y0:y1, x0:x1, c0:c1] on one core. What it needs is a product of what
its rows, its columns and its channels need, so the largest tile of a cut is found one axis at a
time. Layers are cut from the last to the first: how many cores a spike must reach is known then.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .limits import CoreSpec
from .quantise import QuantLayer
from .spec import CompileError

BIT_PLANES = 8


@dataclass(frozen=True)
class Tile:
    """Neurons of `layer` (from 1) on one core and what they take of it."""

    layer: int
    y: tuple[int, int]
    x: tuple[int, int]
    channels: tuple[int, int]
    neurons: int
    synapse_bytes: int
    input_axons: int
    output_axons: int
    fan_in: int


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a layer cut into parts; `needs` bool [parts, inputs]: the lines a part reads."""

    bounds: np.ndarray  # [parts + 1]
    needs: np.ndarray
    takes: tuple[tuple[int, int, int, int], ...]  # per part; see `cut_axis`
    worst: tuple[int, int, int, int]  # the largest of each


@dataclass(frozen=True, eq=False)
class LayerCut:
    """rows, columns, channels: the three cuts of one layer; tiles row-major, channels last."""

    rows: Axis
    columns: Axis
    channel_bounds: np.ndarray
    tiles: tuple[Tile, ...]


def cut_axis(
    parts: int,
    size: int,
    inputs: int,
    kernel: int,
    stride: int,
    padding: int,
    crop: tuple[int, int],
    reach: np.ndarray,
) -> Axis:
    """Cut `size` outputs into `parts` even parts. reach [size]: destinations of each output.

    A part takes (outputs, input lines, (output, tap) pairs inside the input, summed reach).
    """
    bounds = np.arange(parts + 1) * size // parts
    line = np.arange(size)[:, None] * stride - padding + np.arange(kernel)[None]  # [size, kernel]
    inside = (line >= 0) & (line < inputs - sum(crop))
    line = line + crop[0]
    needs = np.zeros((parts, inputs), bool)
    for part, (a, b) in enumerate(pairwise(bounds)):
        needs[part, line[a:b][inside[a:b]]] = True
    takes = np.stack(
        [
            np.diff(bounds),
            needs.sum(1),
            np.add.reduceat(inside.sum(1), bounds[:-1]),
            np.add.reduceat(np.asarray(reach), bounds[:-1]),
        ],
        axis=1,
    )
    rows = tuple(tuple(int(n) for n in row) for row in takes)
    return Axis(bounds, needs, rows, tuple(int(n) for n in takes.max(0)))


def cut_layer(
    layer: QuantLayer,
    number: int,
    input_shape: tuple[int, int, int],
    output_shape: tuple[int, int, int],
    above: LayerCut | None,
    above_dense: bool,
    core: CoreSpec,
) -> LayerCut:
    """The cut of layer `number` (from 1) into the fewest tiles. Raises CompileError."""
    channels, height, width = output_shape
    units = BIT_PLANES if number == 1 and not core.graded_input else 1
    if layer.kind == "dense":  # one position that reads everything through one tap
        reads, kernel, stride, padding, size_in = (
            int(np.prod(input_shape)),
            (1, 1),
            (1, 1),
            (0, 0),
            (1, 1),
        )
    else:
        reads, kernel, stride, padding = (
            input_shape[0],
            layer.weight.shape[2:],
            layer.stride,
            layer.padding,
        )
        size_in = input_shape[1:]
    # how many cores want row y, column x; times `fan_out` for the channel parts above
    reach_y, reach_x, fan_out = np.ones(height, int), np.ones(width, int), 1
    if above is not None:
        fan_out = len(above.channel_bounds) - 1
        if not above_dense:
            reach_y, reach_x = above.rows.needs.sum(0), above.columns.needs.sum(0)
    fan_in = kernel[0] * kernel[1] * reads * units * layer.synapses
    bits = layer.weight_bits * layer.synapses

    def axis(parts: int, which: int) -> Axis:
        return cut_axis(
            parts, (height, width)[which], size_in[which], kernel[which], stride[which],
            padding[which], (layer.crop[:2], layer.crop[2:])[which], (reach_y, reach_x)[which],
        )  # fmt: skip

    def demand(rows: tuple, columns: tuple, c: int) -> dict[str, int]:
        """What a tile of `c` channels takes whose axes take (outputs, inputs, taps, reach)."""
        synapses = kernel[0] * kernel[1] if core.shared_kernels else rows[2] * columns[2]
        return {
            "neurons": rows[0] * columns[0] * c,
            "synapse_bytes": -(-synapses * reads * units * c * bits // 8),
            "input_axons": rows[1] * columns[1] * reads * units,
            "output_axons": rows[3] * columns[3] * c * fan_out,
            "fan_in": fan_in,
        }

    _check_smallest(demand(axis(height, 0).worst, axis(width, 1).worst, 1), number, layer, core)
    all_rows = [axis(n, 0) for n in range(1, height + 1)]
    all_columns = [axis(n, 1) for n in range(1, width + 1)]
    channel_parts = sorted({-(-channels // n): n for n in range(channels, 0, -1)}.values())
    best = None
    for rows in all_rows:
        for columns in all_columns:
            for parts in channel_parts:
                count = len(rows.needs) * len(columns.needs) * parts
                if best is not None and count > best[0][0]:
                    break
                need = demand(rows.worst, columns.worst, -(-channels // parts))
                if all(need[name] <= getattr(core, name) for name in need):
                    # of equal counts, the one whose inputs are sent to the fewest cores
                    key = (count, int(rows.needs.sum()) * int(columns.needs.sum()) * parts)
                    if best is None or key < best[0]:
                        best = (key, rows, columns, parts)
                    break
    _, rows, columns, parts = best
    channel_bounds = np.arange(parts + 1) * channels // parts
    tiles = tuple(
        Tile(
            number,
            (int(rows.bounds[i]), int(rows.bounds[i + 1])),
            (int(columns.bounds[j]), int(columns.bounds[j + 1])),
            (int(channel_bounds[k]), int(channel_bounds[k + 1])),
            **demand(
                rows.takes[i], columns.takes[j], int(channel_bounds[k + 1] - channel_bounds[k])
            ),
        )
        for i in range(len(rows.needs))
        for j in range(len(columns.needs))
        for k in range(parts)
    )
    return LayerCut(rows, columns, channel_bounds, tiles)


_MENDS = {
    "fan_in": "use a smaller kernel or fewer channels below",
    "input_axons": "use a smaller kernel or fewer channels below",
    "synapse_bytes": "use a smaller kernel, fewer channels below, or fewer weight bits",
    "output_axons": "make the next layer smaller so that fewer cores read a spike",
    "neurons": "choose a larger core",
}


def _check_smallest(need: dict[str, int], number: int, layer: QuantLayer, core: CoreSpec) -> None:
    """A tile of one neuron must fit; each demand shrinks with the tile, so this decides."""
    for name in ("fan_in", "input_axons", "synapse_bytes", "output_axons", "neurons"):
        if need[name] > getattr(core, name):
            raise CompileError(
                name,
                number,
                f"a single {layer.kind} neuron needs {need[name]} {name.replace('_', ' ')} but a "
                f"{core.name} core has {getattr(core, name)}",
                f"{_MENDS[name]}, or compile for core=ideal",
            )
