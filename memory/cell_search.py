"""Search in the cells of `memory/cells.py`.

For each query and group: rank the centres, stream the codes of the nearest cells, keep the best
candidates by approximate distance, compare those again with their exact keys.

Legend: B queries, D key dimensions, G groups, k neighbours.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from memory.cells import rank_centres, sq_distance
from memory.selection import select, sort_pairs
from memory.simd import LANES, lowest_bit, prefetch, scan_codes

LEAST = 256  # entries looked at in any group: below, looking costs less than choosing


@njit(cache=True)
def _list_blocks(size, head, prev, near_cell, b, probes, budget, todo, todo_rank):
    """Blocks of the nearest cells until `budget` entries are listed: (block, rank of its cell)."""
    listed = blocks = 0
    for rank in range(probes):
        cell = near_cell[b, rank]
        if cell < 0 or listed >= budget:
            break
        listed += size[cell]
        block = head[cell]
        while block >= 0:
            todo[blocks], todo_rank[blocks] = block, rank
            blocks += 1
            block = prev[block]
    return blocks


@njit(cache=True, fastmath={"nnan", "nsz", "contract"})
def _residual(centre, cell, inverse, queries, b, bound, out):
    """(query - centre) / scale as int16 into out [2*pairs]; False if it does not fit.

    Two plain loops, since that is what becomes vector code.
    """
    dim = queries.shape[1]
    widest = np.float32(0)
    for d in range(dim):
        widest = max(widest, abs((queries[b, d] - centre[cell, d]) * inverse))
    if not widest <= bound:
        return False
    for d in range(dim):
        out[d] = np.int16(math.floor((queries[b, d] - centre[cell, d]) * inverse + np.float32(0.5)))
    return True


@njit(cache=True)
def search(c, first, queries, k, effort, spare, slots, distances):
    """Approximate nearest k of each of G groups from `first` on: slots [B,G,k] int32, distances
    [B,G,k] float32.

    Ascending by (squared distance, slot); places without an entry hold slot -1 and distance inf.
    `effort * sqrt(group size)` entries are looked at, at least 4 k and LEAST; all, where a group
    holds no more than that. Cells grow with the same root, so `effort` is about the number of
    full cells visited.
    `spare`: candidates beyond k that are compared exactly.
    """
    batch, dim = queries.shape
    pairs = c.codes.shape[1]
    bound = np.float32(np.floor(np.sqrt(2.0**31 / (2 * pairs))) - 129)
    keep = k + spare
    room = 4 * keep + LANES
    candidate, ids = np.empty(room, np.float32), np.empty(room, np.int32)
    exact = np.empty(room, np.float32)
    residual = np.zeros(2 * pairs, np.int16)
    buffer = np.empty(LANES, np.int32)
    out, ask = np.uintp(buffer.ctypes.data), np.uintp(residual.ctypes.data)
    codes, block_bytes = np.uintp(c.codes.ctypes.data), np.uintp(2 * pairs * LANES)
    keys, key_bytes = np.uintp(c.keys.ctypes.data), np.uintp(4 * dim)
    groups = slots.shape[1]
    widest, largest = 1, 0
    for group in range(groups):
        widest = max(widest, c.group_cells[first + group])
        largest = max(largest, c.group_size[first + group])
    near = np.empty((batch, widest), np.float32)
    near_cell = np.empty((batch, widest), np.int32)
    most = largest // LANES + widest + 1
    todo, todo_rank = np.empty(most, np.int32), np.empty(most, np.int32)
    for group in range(groups):
        for b in range(batch):
            for i in range(k):
                slots[b, group, i], distances[b, group, i] = -1, np.inf
        stored = c.group_size[first + group]
        if stored == 0:
            continue
        wanted = max(4 * k, LEAST, int(effort * np.sqrt(stored)))
        probes = c.group_cells[first + group]
        if wanted < stored:  # cells of less than average size may be met: a third more
            probes = min(probes, 4 + 4 * wanted * probes // (3 * stored))
        rank_centres(c, first + group, queries, probes, near, near_cell)
        for b in range(batch):
            blocks = _list_blocks(
                c.size, c.head, c.prev, near_cell, b, probes, wanted, todo, todo_rank
            )
            count, limit = 0, np.float32(np.inf)
            rank, fits, square = -1, True, np.float32(0)
            for i in range(blocks):
                block = todo[i]
                if i + 2 < blocks:
                    ahead = codes + np.uintp(todo[i + 2]) * block_bytes
                    for line in range(0, 2 * pairs * LANES, 64):
                        prefetch(ahead + np.uintp(line))
                cell = near_cell[b, todo_rank[i]]
                lanes = LANES
                if todo_rank[i] != rank:  # a new cell; its newest block comes first
                    rank = todo_rank[i]
                    lanes = (c.size[cell] - 1) % LANES + 1
                    inverse = np.float32(1) / c.scale[cell]
                    fits = _residual(c.centre, cell, inverse, queries, b, bound, residual)
                    # A cell of equal keys: not a denormal number, which training flushes to zero.
                    square = max(c.scale[cell] * c.scale[cell], np.float32(1e-30))
                if fits:
                    most_steps = np.int32(min(limit / square, np.float32(2147483520)))
                    address = codes + np.uintp(block) * block_bytes
                    mask = scan_codes(ask, address, pairs, out, most_steps)
                    mask &= (1 << lanes) - 1
                else:  # a far, narrow cell: from here all its entries are as far as its centre
                    mask = (1 << lanes) - 1 if near[b, rank] < limit else 0
                while mask:
                    lane = lowest_bit(mask)
                    mask &= mask - 1
                    candidate[count] = buffer[lane] * square if fits else near[b, rank]
                    ids[count] = c.ids[block, lane]
                    count += 1
                if count > room - LANES:
                    select(candidate, ids, count, keep)
                    count, limit = keep, candidate[0]
                    for j in range(1, keep):
                        limit = max(limit, candidate[j])
            if count > keep:
                select(candidate, ids, count, keep)
                count = keep
            for i in range(count):
                row = keys + np.uintp(ids[i]) * key_bytes
                for line in range(0, 4 * dim, 64):
                    prefetch(row + np.uintp(line))
            for i in range(count):
                exact[i] = sq_distance(c.keys, ids[i], queries, b)
            if count > k:
                select(exact, ids, count, k)
                count = k
            sort_pairs(exact, ids, count)
            for i in range(count):
                slots[b, group, i], distances[b, group, i] = ids[i], exact[i]
