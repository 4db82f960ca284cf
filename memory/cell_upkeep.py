"""How cells of `memory/cells.py` live: entries come, move and go; cells split and dissolve.

Every function is deterministic and its cost is bounded by a few cells, whatever the memory's size.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from memory.cells import (
    FREE_CELLS,
    append,
    close_cell,
    encode,
    full_size,
    members,
    nearest_cell,
    open_cell,
    rank_centres,
    rescale,
    set_centre,
    sq_distance,
    take_out,
)
from memory.simd import LANES

ROUNDS = 4  # of 2-means at a split
NEIGHBOURS = 16  # cells that maintenance offers to an entry, its own among them
CURSOR = 3  # counter: the cell that maintenance visits next


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
            distance = sq_distance(c.keys, slots[i], centres, 1 - side)
            if distance > farthest:
                far, farthest = i, distance
        for d in range(dim):
            centres[side, d] = c.keys[slots[far], d]
    if farthest <= 0:
        return  # all keys are one point: nothing to split
    chosen = np.zeros(count, np.int8)
    for _ in range(ROUNDS):
        for i in range(count):
            left = sq_distance(c.keys, slots[i], centres, 0)
            chosen[i] = sq_distance(c.keys, slots[i], centres, 1) < left
        if not _mean(c, slots, chosen, 0, centres[0]) or not _mean(c, slots, chosen, 1, centres[1]):
            return
    other = open_cell(c, c.group[cell], centres[1])
    for i in range(count):
        if chosen[i]:
            take_out(c, slots[i])
            append(c, other, slots[i])
    set_centre(c, cell, centres[0])
    rescale(c, cell)
    rescale(c, other)


@njit(cache=True)
def _dissolve(c, cell, buffer):
    """Give the few entries of a cell to their next nearest cells."""
    group, slots = c.group[cell], members(c, cell)
    for slot in slots:
        take_out(c, slot)
    close_cell(c, cell)
    for slot in slots:
        target = nearest_cell(c, group, c.keys[slot], buffer)
        if append(c, target, slot):
            rescale(c, target)


@njit(cache=True)
def _remove(c, slot, buffer):
    cell = take_out(c, slot)
    group = c.group[cell]
    if c.size[cell] == 0:
        close_cell(c, cell)
    elif c.group_cells[group] > 1 and c.size[cell] * 8 < full_size(c.group_size[group]):
        _dissolve(c, cell, buffer)


@njit(cache=True)
def _insert(c, slot, cell):
    if append(c, cell, slot):
        rescale(c, cell)
    full = full_size(c.group_size[c.group[cell]])
    # a cell of equal keys cannot be split: try again only when it has grown by another 32; a split
    # leaves a cell for the first entry of each group
    spare = c.counters[FREE_CELLS] - c.group_head.shape[0]
    if c.size[cell] > full and c.size[cell] % LANES == 0 and spare > 0:
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
                if encode(c, cell, block, lane, slot):
                    rescale(c, cell)
                continue
            _remove(c, slot, buffer)
            if cell >= 0 and c.group[cell] != group:  # the removal closed the very cell
                cell = nearest_cell(c, group, c.keys[slot], buffer)
        if cell < 0:
            cell = open_cell(c, group, c.keys[slot])
        _insert(c, slot, cell)


@njit(cache=True)
def recode(c, slots):
    """Encode slots [N] anew where they are: enough for keys that moved a little."""
    for slot in slots:
        block, lane = c.place[slot] // LANES, c.place[slot] % LANES
        if encode(c, c.owner[block], block, lane, slot):
            rescale(c, c.owner[block])


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
        set_centre(c, cell, mean[0])
        rescale(c, cell)
        probes = min(NEIGHBOURS, c.group_cells[group])
        rank_centres(c, group, mean, probes, near, near_cell)
        for slot in slots:
            key, home = c.keys[slot], c.owner[c.place[slot] // LANES]
            best, target = sq_distance(c.keys, slot, c.centre, home), home
            for rank in range(probes):
                other = near_cell[0, rank]
                if c.group[other] == group:  # it may have been dissolved meanwhile
                    distance = sq_distance(c.keys, slot, c.centre, other)
                    if distance < best:
                        best, target = distance, other
            if target != home:
                _remove(c, slot, buffer)
                if c.group[target] != group:  # dissolved by that very removal
                    target = nearest_cell(c, group, key, buffer)
                if target < 0:
                    target = open_cell(c, group, key)
                _insert(c, slot, target)
                moved += 1
    return moved
