"""Cells of an inverted file that grows, splits and dissolves as its entries come and go.

The approximate index divides the entries of each group (an action) into cells around a centre;
a search looks into the nearest cells only. A classical inverted file trains its centres once and
goes stale when a new game starts or the encoder moves. Here a cell that is too full is split in
two by 2-means and one that is nearly empty gives its entries to its neighbours, so that every
write pays a small, bounded share and nothing is ever trained or rebuilt (the idea of SPFresh,
Xu et al. 2023, arXiv 2410.14452, in memory and with slots for names).

Layout. Entries of a cell live in a chain of blocks of 32; all blocks come from one pool. An entry
is kept as int8 residual to its cell's centre, (key - centre) / scale, dimension first, so that a
search streams 64 bytes an entry; the candidates are compared again with their exact keys.
Removal moves the last entry of the cell into the hole, so blocks have no gaps. The centres of a
group are chained in the same manner, as float32.

Loops stand where a slice assignment would do: numba compiles the latter ten times slower.

Legend: C slots, D key dimensions, M cells, N blocks, K blocks of centres, G groups.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from memory.simd import LANES, lowest_bit, scan_centres

SMALLEST, LARGEST = 64, 512  # bounds of a full cell; in between it grows with sqrt(group size)
FILL = 1.0  # full cell = FILL * sqrt(group size)
FREE_BLOCKS, FREE_CELLS, FREE_COARSE = range(3)  # rows of `counters`


# which rows of the arrays are in use is told by the pool they belong to
ROWS = {
    **dict.fromkeys(("codes", "ids", "prev", "owner"), "blocks"),
    **dict.fromkeys(("head", "size", "group", "scale", "centre", "site"), "cells"),
    **dict.fromkeys(("coarse", "coarse_cell", "coarse_prev"), "coarse"),
    "place": "slots",
}


class Cells(NamedTuple):
    keys: np.ndarray  # [C,D] float32, the memory's own array, read only here
    codes: np.ndarray  # [N,D/2,32,2] int8
    ids: np.ndarray  # [N,32] int32, slot of each entry
    prev: np.ndarray  # [N] int32, next older block of the same cell or -1
    owner: np.ndarray  # [N] int32, cell of the block
    place: np.ndarray  # [C] int32, 32 * block + position of a slot, -1 if absent
    head: np.ndarray  # [M] int32, newest block, the only one that may be part full
    size: np.ndarray  # [M] int32
    group: np.ndarray  # [M] int32
    scale: np.ndarray  # [M] float32, width of one int8 step
    centre: np.ndarray  # [M,D] float32
    site: np.ndarray  # [M] int32, 32 * coarse block + position
    coarse: np.ndarray  # [K,D,32] float32
    coarse_cell: np.ndarray  # [K,32] int32
    coarse_prev: np.ndarray  # [K] int32
    group_head: np.ndarray  # [G] int32
    group_cells: np.ndarray  # [G] int32
    group_size: np.ndarray  # [G] int64
    free_blocks: np.ndarray  # [N] int32, stacks of free numbers
    free_cells: np.ndarray  # [M] int32
    free_coarse: np.ndarray  # [K] int32
    counters: np.ndarray  # [4] int64, heights of the three stacks, cursor of maintenance


def allocate(keys: np.ndarray, groups: int) -> Cells:
    """Empty cells for `keys` [C,D]. Untouched pages of the pool cost no memory."""
    capacity, dim = keys.shape
    cells = capacity // 16 + 4 * groups
    blocks = capacity // LANES + cells + 1
    coarse = cells // LANES + groups + 1
    if 32 * blocks >= 2**31:
        raise ValueError(f"capacity {capacity} is too large for 32-bit places")

    def minus(*shape):
        return np.full(shape, -1, np.int32)

    def stack(count):
        return np.arange(count - 1, -1, -1, dtype=np.int32)  # low numbers are taken first

    return Cells(
        keys=keys,
        codes=np.zeros((blocks, (dim + 1) // 2, LANES, 2), np.int8),
        ids=np.zeros((blocks, LANES), np.int32),
        prev=minus(blocks),
        owner=minus(blocks),
        place=minus(capacity),
        head=minus(cells),
        size=np.zeros(cells, np.int32),
        group=minus(cells),
        scale=np.zeros(cells, np.float32),
        centre=np.zeros((cells, dim), np.float32),
        site=minus(cells),
        coarse=np.zeros((coarse, dim, LANES), np.float32),
        coarse_cell=minus(coarse, LANES),
        coarse_prev=minus(coarse),
        group_head=minus(groups),
        group_cells=np.zeros(groups, np.int32),
        group_size=np.zeros(groups, np.int64),
        free_blocks=stack(blocks),
        free_cells=stack(cells),
        free_coarse=stack(coarse),
        counters=np.array([blocks, cells, coarse, 0], np.int64),
    )


@njit(cache=True)
def _pop(stack, counters, which):
    counters[which] -= 1
    return stack[counters[which]]


@njit(cache=True)
def _push(stack, counters, which, number):
    stack[counters[which]] = number
    counters[which] += 1


@njit(cache=True)
def _tail(count):
    """How many of the newest block's 32 places are taken in a list of `count` > 0."""
    return (count - 1) % LANES + 1


@njit(cache=True)
def full_size(group_size):
    return min(max(int(FILL * np.sqrt(group_size)), SMALLEST), LARGEST)


@njit(cache=True)
def nearest_cell(c, group, key, buffer):
    """Cell of the group with the nearest centre, -1 if it has none. buffer: [32] float32."""
    dim = c.keys.shape[1]
    best, best_cell = np.float32(np.inf), -1
    block, lanes = c.group_head[group], 0
    if block >= 0:
        lanes = _tail(c.group_cells[group])
    query, base = np.uintp(key.ctypes.data), np.uintp(c.coarse.ctypes.data)
    out = np.uintp(buffer.ctypes.data)
    while block >= 0:
        address = base + np.uintp(block) * np.uintp(dim * LANES * 4)
        scan_centres(query, address, dim, out, best)
        for lane in range(lanes):
            if buffer[lane] < best:
                best, best_cell = buffer[lane], c.coarse_cell[block, lane]
        block, lanes = c.coarse_prev[block], LANES
    return best_cell


@njit(cache=True)
def rank_centres(c, group, queries, probes, near, near_cell):
    """The `probes` nearest cells of each query, ascending: near [B,P], near_cell [B,P]."""
    dim = c.keys.shape[1]
    buffer = np.empty(LANES, np.float32)
    out, base = np.uintp(buffer.ctypes.data), np.uintp(c.coarse.ctypes.data)
    for b in range(queries.shape[0]):
        for rank in range(probes):
            near[b, rank], near_cell[b, rank] = np.inf, -1
    asked = np.uintp(queries.ctypes.data)
    block = c.group_head[group]
    lanes = (c.group_cells[group] - 1) % LANES + 1
    while block >= 0:  # block by block for all queries: a block fits the first-level cache
        address = base + np.uintp(block) * np.uintp(dim * LANES * 4)
        for b in range(queries.shape[0]):
            query = asked + np.uintp(4 * dim * b)
            mask = scan_centres(query, address, dim, out, near[b, probes - 1])
            mask &= (1 << lanes) - 1
            while mask:
                lane = lowest_bit(mask)
                mask &= mask - 1
                distance, j = buffer[lane], probes - 1
                if distance >= near[b, j]:
                    continue
                while j > 0 and near[b, j - 1] > distance:
                    near[b, j], near_cell[b, j] = near[b, j - 1], near_cell[b, j - 1]
                    j -= 1
                near[b, j], near_cell[b, j] = distance, c.coarse_cell[block, lane]
        block, lanes = c.coarse_prev[block], LANES


@njit(cache=True)
def encode(c, cell, block, lane, slot):
    """Write the code of a slot; True if it had to be clipped, so the cell's scale is too small."""
    inverse, clipped = np.float32(1) / c.scale[cell], False
    for d in range(c.keys.shape[1]):
        value = math.floor((c.keys[slot, d] - c.centre[cell, d]) * inverse + np.float32(0.5))
        if value > 127 or value < -127:
            value, clipped = min(max(value, -127.0), 127.0), True
        c.codes[block, d >> 1, lane, d & 1] = np.int8(value)
    return clipped


@njit(cache=True)
def rescale(c, cell):
    """Choose the scale anew, with some room to grow, and write all codes of the cell again."""
    widest = np.float32(0)
    for again in range(2):
        block = c.head[cell]
        lanes = _tail(c.size[cell]) if block >= 0 else 0
        while block >= 0:
            for lane in range(lanes):
                slot = c.ids[block, lane]
                if again:
                    encode(c, cell, block, lane, slot)
                else:
                    for d in range(c.keys.shape[1]):
                        widest = max(widest, abs(c.keys[slot, d] - c.centre[cell, d]))
            block, lanes = c.prev[block], LANES
        if not again:
            c.scale[cell] = max(widest * np.float32(1.2 / 127), np.float32(1e-20))


@njit(cache=True)
def append(c, cell, slot):
    """Add a slot to a cell; True if its key does not fit the cell's scale."""
    lane = c.size[cell] % LANES
    if lane == 0:
        block = _pop(c.free_blocks, c.counters, FREE_BLOCKS)
        c.prev[block], c.owner[block], c.head[cell] = c.head[cell], cell, block
    block = c.head[cell]
    c.ids[block, lane] = slot
    c.place[slot] = block * LANES + lane
    c.size[cell] += 1
    c.group_size[c.group[cell]] += 1
    return encode(c, cell, block, lane, slot)


@njit(cache=True)
def take_out(c, slot):
    """Remove a slot from its cell, the last entry fills the hole. Returns the cell."""
    block, lane = c.place[slot] // LANES, c.place[slot] % LANES
    cell = c.owner[block]
    last_block, last = c.head[cell], _tail(c.size[cell]) - 1
    if last_block != block or last != lane:
        moved = c.ids[last_block, last]
        c.ids[block, lane] = moved
        c.place[moved] = block * LANES + lane
        for pair in range(c.codes.shape[1]):
            c.codes[block, pair, lane, 0] = c.codes[last_block, pair, last, 0]
            c.codes[block, pair, lane, 1] = c.codes[last_block, pair, last, 1]
    if last == 0:
        c.head[cell] = c.prev[last_block]
        c.prev[last_block] = c.owner[last_block] = -1
        _push(c.free_blocks, c.counters, FREE_BLOCKS, last_block)
    c.place[slot] = -1
    c.size[cell] -= 1
    c.group_size[c.group[cell]] -= 1
    return cell


@njit(cache=True)
def set_centre(c, cell, centre):
    block, lane = c.site[cell] // LANES, c.site[cell] % LANES
    for d in range(centre.shape[0]):
        c.centre[cell, d] = c.coarse[block, d, lane] = centre[d]


@njit(cache=True)
def open_cell(c, group, centre):
    """A new empty cell. The caller has made sure that a free one is left."""
    cell = _pop(c.free_cells, c.counters, FREE_CELLS)
    lane = c.group_cells[group] % LANES
    if lane == 0:
        block = _pop(c.free_coarse, c.counters, FREE_COARSE)
        c.coarse_prev[block], c.group_head[group] = c.group_head[group], block
    block = c.group_head[group]
    c.coarse_cell[block, lane] = cell
    c.site[cell] = block * LANES + lane
    c.group_cells[group] += 1
    c.group[cell], c.size[cell], c.head[cell] = group, 0, -1
    c.scale[cell] = np.float32(1e-20)
    set_centre(c, cell, centre)
    return cell


@njit(cache=True)
def close_cell(c, cell):
    """Give back an empty cell; the group's last centre moves into its place."""
    group = c.group[cell]
    block, lane = c.site[cell] // LANES, c.site[cell] % LANES
    last_block, last = c.group_head[group], _tail(c.group_cells[group]) - 1
    moved = c.coarse_cell[last_block, last]
    c.coarse_cell[block, lane] = moved
    for d in range(c.centre.shape[1]):
        c.coarse[block, d, lane] = c.centre[moved, d]
    c.site[moved] = block * LANES + lane
    c.coarse_cell[last_block, last] = -1
    if last == 0:
        c.group_head[group] = c.coarse_prev[last_block]
        c.coarse_prev[last_block] = -1
        _push(c.free_coarse, c.counters, FREE_COARSE, last_block)
    c.group_cells[group] -= 1
    c.site[cell] = c.group[cell] = -1
    _push(c.free_cells, c.counters, FREE_CELLS, cell)


@njit(cache=True)
def members(c, cell):
    """Slots of a cell [size] int32, newest block first."""
    out = np.empty(c.size[cell], np.int32)
    block, count = c.head[cell], 0
    lanes = _tail(c.size[cell]) if block >= 0 else 0
    while block >= 0:
        for lane in range(lanes):
            out[count + lane] = c.ids[block, lane]
        count += lanes
        block, lanes = c.prev[block], LANES
    return out


@njit(cache=True, fastmath={"reassoc", "contract"})
def sq_distance(a, i, b, j):
    """Squared distance of row i of a and row j of b: rows by number, as a view costs two atomic
    operations on its owner's reference count."""
    total = np.float32(0)
    for d in range(a.shape[1]):
        gap = a[i, d] - b[j, d]
        total += gap * gap
    return total
