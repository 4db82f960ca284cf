"""Tiles on the mesh, and what each spike's journey costs there.

Cores are filled along a snake through the routers, so that consecutive tiles are neighbours; then
tiles trade places while that shortens the journeys. Routing is dimension-ordered (columns first),
one message per spike and destination core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .limits import CoreSpec
from .spec import CompileError
from .tiling import LayerCut, Tile

SWAP_PASSES = 8


@dataclass(frozen=True, eq=False)
class Routes:
    """For each neuron of one layer, int64 [neurons] in the core's order: what one spike causes."""

    messages: np.ndarray
    east_west: np.ndarray
    north_south: np.ndarray
    crossings: np.ndarray  # messages that leave the chip


@dataclass(frozen=True, eq=False)
class Placement:
    """tiles and their routers: routers int64 [tiles, 2] = (column, row) over all chips."""

    tiles: tuple[Tile, ...]
    routers: np.ndarray
    routes: tuple[Routes, ...]
    traffic: np.ndarray  # int64 [tiles, tiles]: messages if every neuron spiked once
    input_cores: np.ndarray  # int64 [inputs]: cores that read each value of a frame; 0 in a crop
    core: CoreSpec

    def hops(self) -> np.ndarray:
        """Mean hops of the messages that leave each tile, float [tiles] (0 where none leave)."""
        distance = np.abs(self.routers[:, None] - self.routers[None]).sum(-1)
        total = self.traffic.sum(1)
        return (self.traffic * distance).sum(1) / np.maximum(total, 1)


def snake(core: CoreSpec, count: int) -> np.ndarray:
    """Routers of the first `count` cores: chip by chip, column by column, up and down."""
    columns, rows = core.tiles
    chips = -(-count // core.cores)  # no more than are filled
    order = []
    for column in range(columns * chips):
        lines = range(rows) if column % 2 == 0 else reversed(range(rows))
        order += [(column, row) for row in lines]
    per_chip = core.cores
    places = []
    for chip in range(chips):
        routers = order[chip * columns * rows : (chip + 1) * columns * rows]
        places += [r for r in routers for _ in range(core.cores_per_tile)][:per_chip]
    return np.array(places[:count], np.int64).reshape(-1, 2)


def improve(routers: np.ndarray, traffic: np.ndarray) -> np.ndarray:
    """Swap tiles while the summed traffic x hops falls. Deterministic."""
    routers = routers.copy()
    both = (traffic + traffic.T).astype(np.float64)
    for _ in range(SWAP_PASSES):
        moved = False
        for i in range(len(routers)):
            distance = np.abs(routers[:, None] - routers[None]).sum(-1)
            here = (both * distance).sum(1)
            # i at the place of each other, each other at the place of i; the pair itself stays
            there, back = both[i] @ distance, both @ distance[:, i]
            change = there + back - here[i] - here + 2 * both[i] * distance[i]
            change[i] = 0
            best = int(np.argmin(change))
            if change[best] < -1e-9:
                routers[[i, best]] = routers[[best, i]]
                moved = True
        if not moved:
            break
    return routers


def place(
    cuts: list[LayerCut], shapes: list[tuple[int, int, int]], dense: list[bool], core: CoreSpec
) -> Placement:
    """Place all tiles; shapes [layers + 1]; dense [layers]. Raises CompileError: too few cores."""
    tiles = tuple(tile for cut in cuts for tile in cut.tiles)
    if len(tiles) > core.cores_in_all:
        largest = max(range(len(cuts)), key=lambda i: len(cuts[i].tiles))
        chips = -(-len(tiles) // core.cores)
        raise CompileError(
            "cores",
            largest + 1,
            f"the network needs {len(tiles)} cores ({len(cuts[largest].tiles)} of them for this "
            f"layer) and {core.chips} {core.name} chip(s) have {core.cores_in_all}",
            f"use chips={chips}, a smaller encoder, or synapses=1 where weights have two",
        )
    starts = np.cumsum([0] + [len(cut.tiles) for cut in cuts])
    traffic = np.zeros((len(tiles), len(tiles)), np.int64)
    for number in range(len(cuts) - 1):
        for i, source in enumerate(cuts[number].tiles, starts[number]):
            for j in range(starts[number + 1], starts[number + 2]):
                rows, columns = _wanted(cuts[number + 1], j - starts[number + 1],
                                        dense[number + 1], shapes[number + 1])  # fmt: skip
                traffic[i, j] = (
                    rows[slice(*source.y)].sum() * columns[slice(*source.x)].sum()
                    * (source.channels[1] - source.channels[0])
                )  # fmt: skip
    routers = improve(snake(core, len(tiles)), traffic)
    routes = tuple(
        _routes(number, cuts, starts, shapes, dense, routers, core) for number in range(len(cuts))
    )
    input_cores = _input_cores(cuts[0], shapes[0], dense[0])
    return Placement(tiles, routers, routes, traffic, input_cores, core)


def _input_cores(cut: LayerCut, shape: tuple[int, int, int], dense: bool) -> np.ndarray:
    """int64 [C * H * W]: how many tiles of the first layer read each value of a frame."""
    if dense:
        return np.full(int(np.prod(shape)), len(cut.tiles))
    place = cut.rows.needs.sum(0)[:, None] * cut.columns.needs.sum(0)  # [H, W]
    return np.tile(place.ravel() * (len(cut.channel_bounds) - 1), shape[0])


def _wanted(
    cut: LayerCut, tile: int, dense: bool, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """bool [H], [W]: rows and columns of the layer below that tile `tile` of `cut` reads."""
    if dense:
        return np.ones(shape[1], bool), np.ones(shape[2], bool)
    parts = len(cut.channel_bounds) - 1
    row, column = divmod(tile // parts, len(cut.columns.needs))
    return cut.rows.needs[row], cut.columns.needs[column]


def _routes(
    number: int,
    cuts: list[LayerCut],
    starts: np.ndarray,
    shapes: list[tuple[int, int, int]],
    dense: list[bool],
    routers: np.ndarray,
    core: CoreSpec,
) -> Routes:
    """Journeys of the spikes of layer `number` (from 0) to the layer above; the last has none."""
    channels, height, width = shapes[number + 1]
    counts = np.zeros((4, height, width, channels), np.int64)
    if number + 1 < len(cuts):
        for i, source in enumerate(cuts[number].tiles, starts[number]):
            box = tuple(slice(*edge) for edge in (source.y, source.x, source.channels))
            for j in range(starts[number + 1], starts[number + 2]):
                rows, columns = _wanted(
                    cuts[number + 1], j - starts[number + 1], dense[number + 1], shapes[number + 1]
                )
                wanted = (rows[box[0], None] & columns[None, box[1]])[..., None].astype(np.int64)
                across, along = np.abs(routers[i] - routers[j])
                chips = routers[[i, j], 0] // core.tiles[0]
                for k, amount in enumerate((1, across, along, int(chips[0] != chips[1]))):
                    counts[k][box] += amount * wanted
    return Routes(*(c.reshape(-1) for c in counts))
