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

from typing import NamedTuple

import numpy as np
from numba import njit

from memory.simd import LANES, lowest_bit, scan_centres

SMALLEST, LARGEST = 64, 512  # bounds of a full cell; in between it grows with sqrt(group size)
FILL = 1.0  # full cell = FILL * sqrt(group size)
ROUNDS = 4  # of 2-means at a split
NEIGHBOURS = 16  # cells that maintenance offers to an entry, its own among them
FREE_BLOCKS, FREE_CELLS, FREE_COARSE, CURSOR = range(4)


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
    block = c.group_head[group]
    lanes = (c.group_cells[group] - 1) % LANES + 1
    while block >= 0:  # block by block for all queries: a block fits the first-level cache
        address = base + np.uintp(block) * np.uintp(dim * LANES * 4)
        for b in range(queries.shape[0]):
            query = np.uintp(queries[b].ctypes.data)
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
def _encode(c, cell, block, lane, slot):
    """Write the code of a slot; True if it had to be clipped, so the cell's scale is too small."""
    step, clipped = c.scale[cell], False
    for d in range(c.keys.shape[1]):
        value = np.round((c.keys[slot, d] - c.centre[cell, d]) / step)
        if value > 127 or value < -127:
            value, clipped = min(max(value, -127.0), 127.0), True
        c.codes[block, d >> 1, lane, d & 1] = np.int8(value)
    return clipped


@njit(cache=True)
def _rescale(c, cell):
    """Choose the scale anew, with some room to grow, and write all codes of the cell again."""
    widest = np.float32(0)
    for again in range(2):
        block = c.head[cell]
        lanes = _tail(c.size[cell]) if block >= 0 else 0
        while block >= 0:
            for lane in range(lanes):
                slot = c.ids[block, lane]
                if again:
                    _encode(c, cell, block, lane, slot)
                else:
                    for d in range(c.keys.shape[1]):
                        widest = max(widest, abs(c.keys[slot, d] - c.centre[cell, d]))
            block, lanes = c.prev[block], LANES
        if not again:
            c.scale[cell] = max(widest * np.float32(1.2 / 127), np.float32(1e-20))


@njit(cache=True)
def _append(c, cell, slot):
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
    return _encode(c, cell, block, lane, slot)


@njit(cache=True)
def _take_out(c, slot):
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
def _set_centre(c, cell, centre):
    block, lane = c.site[cell] // LANES, c.site[cell] % LANES
    for d in range(centre.shape[0]):
        c.centre[cell, d] = c.coarse[block, d, lane] = centre[d]


@njit(cache=True)
def _open_cell(c, group, centre):
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
    _set_centre(c, cell, centre)
    return cell


@njit(cache=True)
def _close_cell(c, cell):
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


@njit(cache=True)
def _mean(c, slots, chosen, side, out):
    """Mean key of the slots with chosen == side, into out [D]; returns their number."""
    for d in range(out.shape[0]):
        out[d] = 0
    count = 0
    for i in range(slots.shape[0]):
        if chosen[i] == side:
            count += 1
            for d in range(out.shape[0]):
                out[d] += c.keys[slots[i], d]
    for d in range(out.shape[0]):
        out[d] /= np.float32(max(count, 1))
    return count


@njit(cache=True, fastmath={"reassoc", "contract"})
def sq_distance(a, b):
    total = np.float32(0)
    for d in range(a.shape[0]):
        gap = a[d] - b[d]
        total += gap * gap
    return total


@njit(cache=True)
def _split(c, cell):
    """2-means of a full cell, started from its two mutually far entries; deterministic."""
    slots = members(c, cell)
    count, dim = slots.shape[0], c.keys.shape[1]
    centres = np.empty((2, dim), np.float32)
    for d in range(dim):
        centres[0, d] = c.centre[cell, d]
    for side in (1, 0):  # the farthest from the centre, then the farthest from that one
        far, farthest = 0, np.float32(-1)
        for i in range(count):
            distance = sq_distance(c.keys[slots[i]], centres[1 - side])
            if distance > farthest:
                far, farthest = i, distance
        for d in range(dim):
            centres[side, d] = c.keys[slots[far], d]
    if farthest <= 0:
        return  # all keys are one point: nothing to split
    chosen = np.zeros(count, np.int8)
    for _ in range(ROUNDS):
        for i in range(count):
            key = c.keys[slots[i]]
            chosen[i] = sq_distance(key, centres[1]) < sq_distance(key, centres[0])
        if not _mean(c, slots, chosen, 0, centres[0]) or not _mean(c, slots, chosen, 1, centres[1]):
            return
    other = _open_cell(c, c.group[cell], centres[1])
    for i in range(count):
        if chosen[i]:
            _take_out(c, slots[i])
            _append(c, other, slots[i])
    _set_centre(c, cell, centres[0])
    _rescale(c, cell)
    _rescale(c, other)


@njit(cache=True)
def _dissolve(c, cell, buffer):
    """Give the few entries of a cell to their next nearest cells."""
    group, slots = c.group[cell], members(c, cell)
    for slot in slots:
        _take_out(c, slot)
    _close_cell(c, cell)
    for slot in slots:
        target = nearest_cell(c, group, c.keys[slot], buffer)
        if _append(c, target, slot):
            _rescale(c, target)


@njit(cache=True)
def _remove(c, slot, buffer):
    cell = _take_out(c, slot)
    group = c.group[cell]
    if c.size[cell] == 0:
        _close_cell(c, cell)
    elif c.group_cells[group] > 1 and c.size[cell] * 8 < full_size(c.group_size[group]):
        _dissolve(c, cell, buffer)


@njit(cache=True)
def _insert(c, slot, cell):
    if _append(c, cell, slot):
        _rescale(c, cell)
    full = full_size(c.group_size[c.group[cell]])
    # a cell of equal keys cannot be split: try again only when it has grown by another 32
    if c.size[cell] > full and c.size[cell] % LANES == 0 and c.counters[FREE_CELLS] > 0:
        _split(c, cell)


@njit(cache=True)
def put(c, slots, groups):
    """Insert slots [N] into groups [N], or move those already present, by their keys as of now."""
    buffer = np.empty(LANES, np.float32)
    for i in range(slots.shape[0]):
        slot, group = slots[i], groups[i]
        cell = nearest_cell(c, group, c.keys[slot], buffer)
        if c.place[slot] >= 0:
            block, lane = c.place[slot] // LANES, c.place[slot] % LANES
            if c.owner[block] == cell:
                if _encode(c, cell, block, lane, slot):
                    _rescale(c, cell)
                continue
            _remove(c, slot, buffer)
            if cell >= 0 and c.group[cell] != group:  # the removal closed the very cell
                cell = nearest_cell(c, group, c.keys[slot], buffer)
        if cell < 0:
            cell = _open_cell(c, group, c.keys[slot])
        _insert(c, slot, cell)


@njit(cache=True)
def drop(c, slots):
    """Remove slots [N]; those that are absent are left alone."""
    buffer = np.empty(LANES, np.float32)
    for slot in slots:
        if c.place[slot] >= 0:
            _remove(c, slot, buffer)


@njit(cache=True)
def maintain(c, budget):
    """Visit the next cells until `budget` entries are seen: centre to the mean, entries to the
    nearest of the cells around. Returns how many entries moved.

    Splits leave some entries in a cell that is no longer their nearest, and re-embedding moves
    whole cells; this mends both at a cost the caller chooses.
    """
    total, moved, seen, visited = c.head.shape[0], 0, 0, 0
    buffer = np.empty(LANES, np.float32)
    mean = np.empty((1, c.keys.shape[1]), np.float32)
    near = np.empty((1, NEIGHBOURS), np.float32)
    near_cell = np.empty((1, NEIGHBOURS), np.int32)
    cells = total - c.counters[FREE_CELLS]
    while seen < budget and visited < cells and c.counters[FREE_CELLS] < total:
        cell = c.counters[CURSOR] % total
        while c.site[cell] < 0:
            cell = (cell + 1) % total
        c.counters[CURSOR] = cell + 1
        slots, group = members(c, cell), c.group[cell]
        visited += 1
        seen += slots.shape[0]
        _mean(c, slots, np.zeros(slots.shape[0], np.int8), 0, mean[0])
        _set_centre(c, cell, mean[0])
        _rescale(c, cell)
        probes = min(NEIGHBOURS, c.group_cells[group])
        rank_centres(c, group, mean, probes, near, near_cell)
        for slot in slots:
            key, home = c.keys[slot], c.owner[c.place[slot] // LANES]
            best, target = sq_distance(key, c.centre[home]), home
            for rank in range(probes):
                other = near_cell[0, rank]
                if c.group[other] == group:  # it may have been dissolved meanwhile
                    distance = sq_distance(key, c.centre[other])
                    if distance < best:
                        best, target = distance, other
            if target != home:
                _remove(c, slot, buffer)
                if c.group[target] != group:  # dissolved by that very removal
                    target = nearest_cell(c, group, key, buffer)
                if target < 0:
                    target = _open_cell(c, group, key)
                _insert(c, slot, target)
                moved += 1
    return moved
