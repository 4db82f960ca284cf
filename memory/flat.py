"""Exact search: every stored key is compared. The measure of all other indices.

One thread, one order, direct squared distances, ties by slot: the result is defined uniquely.
It needs no upkeep at all, since it reads the memory's own keys.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from memory.cells import sq_distance
from memory.selection import select, sort_pairs

CHUNK = 128  # keys that stay in the first-level cache while all queries pass over them


@njit(cache=True)
def search(keys, groups, stored, first, queries, k, slots, distances):
    """Nearest k of each group from `first` on among the first `stored` keys.

    keys [C,D] float32, groups [C] int32 (-1: not stored), queries [B,D];
    out: slots [B,G,k] int32 (-1 where there are fewer), distances [B,G,k] float32, ascending.
    """
    batch, count_groups = slots.shape[0], slots.shape[1]
    room = 4 * k + 1
    value = np.empty((batch, count_groups, room), np.float32)
    ids = np.empty((batch, count_groups, room), np.int32)
    count = np.zeros((batch, count_groups), np.int64)
    limit = np.full((batch, count_groups), np.float32(np.inf))
    for start in range(0, stored, CHUNK):
        for b in range(batch):
            for slot in range(start, min(start + CHUNK, stored)):
                group = groups[slot] - first
                if group < 0 or group >= count_groups:
                    continue
                distance = sq_distance(keys, slot, queries, b)
                if distance < limit[b, group]:  # an equal one has a higher slot and loses
                    n = count[b, group]
                    value[b, group, n], ids[b, group, n] = distance, slot
                    count[b, group] = n + 1
                    if n + 1 == room:
                        select(value[b, group], ids[b, group], room, k)
                        count[b, group] = k
                        worst = value[b, group, 0]
                        for i in range(1, k):
                            worst = max(worst, value[b, group, i])
                        limit[b, group] = worst
    for b in range(batch):
        for group in range(count_groups):
            n = count[b, group]
            if n > k:
                select(value[b, group], ids[b, group], n, k)
                n = k
            sort_pairs(value[b, group], ids[b, group], n)
            for i in range(k):
                slots[b, group, i], distances[b, group, i] = -1, np.inf
                if i < n:
                    slots[b, group, i], distances[b, group, i] = (
                        ids[b, group, i],
                        value[b, group, i],
                    )
