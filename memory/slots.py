"""Slots of the episodic memory: found by hash, forgotten by a global tick within quotas.

An entry is one action in one state; it is found again by the state's hash together with action
and task, never by its key. The table of hashes is open addressing with linear probing over slot
numbers, and a match is always verified, so two states share a slot only if all 64 bits agree.

Forgetting. Every slot carries the tick of its last recall or write. When the memory is full, the
least recently recalled entry of one *pool* (a task, or a task's action) goes: the pool that
writes, if it has its guaranteed share, else the pool that is furthest above its own. So a pool
may borrow what others leave free and gives it back when they come; nobody can push it below its
share. The oldest entries of a pool are found by one pass over the ticks that queues the next
`QUEUE` victims; a queued slot that has been recalled since is passed over. As ticks only grow,
this is exact, and the pass is paid once in `QUEUE` evictions.

Legend: C slots, N entries written, D key dimensions, P pools, T table size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from memory.selection import select

QUEUE = 1024
COUNT, TICK, CREATED, UPDATED, EVICTED, DRIFTED = range(6)  # rows of `totals`
MEAN_STEP, MAXIMUM = 0, 1  # how a value meets the one already stored


class Slots(NamedTuple):
    keys: np.ndarray  # [C,D] float32
    values: np.ndarray  # [C] float32
    hashes: np.ndarray  # [C] int64
    actions: np.ndarray  # [C] int32
    tasks: np.ndarray  # [C] int32
    pools: np.ndarray  # [C] int32
    ticks: np.ndarray  # [C] int64, last recall or write
    born: np.ndarray  # [C] int64, tick of creation
    versions: np.ndarray  # [C] int32, the encoder that wrote the key
    refs: np.ndarray  # [C] int64, the caller's name of the moment (e.g. a replay index)
    table: np.ndarray  # [T] int32, slot or -1
    quota: np.ndarray  # [P] int64
    sizes: np.ndarray  # [P] int64
    per_action: np.ndarray  # [G,A] int64, entries of each action of each task
    queue: np.ndarray  # [P,QUEUE] int32, next victims, the first to go last
    queue_tick: np.ndarray  # [P,QUEUE] int64, their ticks when queued
    queued: np.ndarray  # [P] int64
    totals: np.ndarray  # [6] int64
    drift: np.ndarray  # [1] float64, sum of squared key displacements


def allocate(keys: np.ndarray, tasks: int, num_actions: int, quota: np.ndarray) -> Slots:
    """Empty slots over keys [C,D]; pages that are never touched cost no memory."""
    capacity = len(keys)
    pools = len(quota)
    return Slots(
        keys=keys,
        values=np.zeros(capacity, np.float32),
        hashes=np.zeros(capacity, np.int64),
        actions=np.zeros(capacity, np.int32),
        tasks=np.zeros(capacity, np.int32),
        pools=np.zeros(capacity, np.int32),
        ticks=np.zeros(capacity, np.int64),
        born=np.zeros(capacity, np.int64),
        versions=np.zeros(capacity, np.int32),
        refs=np.zeros(capacity, np.int64),
        table=np.full(1 << (2 * capacity - 1).bit_length(), -1, np.int32),
        quota=np.asarray(quota, np.int64),
        sizes=np.zeros(pools, np.int64),
        per_action=np.zeros((tasks, num_actions), np.int64),
        queue=np.zeros((pools, QUEUE), np.int32),
        queue_tick=np.zeros((pools, QUEUE), np.int64),
        queued=np.zeros(pools, np.int64),
        totals=np.zeros(6, np.int64),
        drift=np.zeros(1, np.float64),
    )


@njit(cache=True)
def _home(s, state_hash, action, task):
    """Where in the table the search for an entry begins (splitmix64 finaliser)."""
    x = np.uint64(state_hash) ^ (np.uint64(action + 1) * np.uint64(0x9E3779B97F4A7C15))
    x ^= np.uint64(task + 1) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) & np.uint64(s.table.shape[0] - 1))


@njit(cache=True)
def _find(s, state_hash, action, task):
    """(slot or -1, place in the table where it is or belongs)."""
    at = _home(s, state_hash, action, task)
    while s.table[at] >= 0:
        slot = s.table[at]
        if s.hashes[slot] == state_hash and s.actions[slot] == action and s.tasks[slot] == task:
            return slot, at
        at = (at + 1) % s.table.shape[0]
    return -1, at


@njit(cache=True)
def _unlink(s, slot):
    """Take a slot out of the table; later entries of the probe run move up into the hole."""
    size = s.table.shape[0]
    _, hole = _find(s, s.hashes[slot], s.actions[slot], s.tasks[slot])
    at = (hole + 1) % size
    while s.table[at] >= 0:
        other = s.table[at]
        home = _home(s, s.hashes[other], s.actions[other], s.tasks[other])
        if (at - home) % size >= (at - hole) % size:  # the hole lies on its probe path
            s.table[hole], hole = other, at
        at = (at + 1) % size
    s.table[hole] = -1


@njit(cache=True)
def _refill(s, pool):
    """Queue the least recently recalled slots of a pool."""
    room = 4 * QUEUE
    ticks, ids = np.empty(room, np.int64), np.empty(room, np.int32)
    count, limit = 0, np.int64(2**62)
    for slot in range(s.totals[COUNT]):
        if s.pools[slot] == pool and s.ticks[slot] < limit:
            ticks[count], ids[count] = s.ticks[slot], slot
            count += 1
            if count == room:
                select(ticks, ids, count, QUEUE)
                count, limit = QUEUE, ticks[0]
                for i in range(QUEUE):
                    limit = max(limit, ticks[i])
                limit += 1  # equal ticks compete by slot number
    if count > QUEUE:
        select(ticks, ids, count, QUEUE)
        count = QUEUE
    order = np.argsort(ids[:count])  # by slot, then stably by tick
    order = order[np.argsort(ticks[:count][order], kind="mergesort")]
    for i in range(count):
        s.queue[pool, count - 1 - i] = ids[order[i]]
        s.queue_tick[pool, count - 1 - i] = ticks[order[i]]
    s.queued[pool] = count


@njit(cache=True)
def _evict(s, pool):
    """Free the slot that has to make way for a new entry of `pool`."""
    if s.sizes[pool] < s.quota[pool] or s.sizes[pool] == 0:
        most = -1
        for other in range(s.quota.shape[0]):
            excess = s.sizes[other] - s.quota[other]
            if s.sizes[other] > 0 and (most < 0 or excess > s.sizes[most] - s.quota[most]):
                most = other
        pool = most
    while True:
        if s.queued[pool] == 0:
            _refill(s, pool)
        s.queued[pool] -= 1
        slot = s.queue[pool, s.queued[pool]]
        # recalled since, or already given to another entry: its tick has moved
        if s.ticks[slot] == s.queue_tick[pool, s.queued[pool]]:
            break
    _unlink(s, slot)
    s.sizes[pool] -= 1
    s.per_action[s.tasks[slot], s.actions[slot]] -= 1
    s.totals[EVICTED] += 1
    return slot


@njit(cache=True)
def upsert(s, keys, actions, values, hashes, refs, task, pools, version, rule, alpha, slots, moved):
    """Write N entries in order, their slots to `slots` [N].

    A known entry takes the new key, version and ref, and its value moves:
    v += alpha (R - v) (NEC) or v = max(v, R) (MFEC). `pools` [A] is the pool of each action;
    `moved` [N] tells where the slot's key is not what it was.
    """
    dim = keys.shape[1]
    for i in range(keys.shape[0]):
        action, value = actions[i], values[i]
        slot, at = _find(s, hashes[i], action, task)
        s.totals[TICK] += 1
        moved[i] = slot < 0
        if slot >= 0:
            if rule == MAXIMUM:
                s.values[slot] = max(s.values[slot], value)
            else:
                s.values[slot] += np.float32(alpha) * (value - s.values[slot])
            s.totals[UPDATED] += 1
            if s.versions[slot] != version:  # the same state seen by a later encoder
                shift = 0.0
                for d in range(dim):
                    shift += (keys[i, d] - s.keys[slot, d]) ** 2
                s.drift[0] += shift
                s.totals[DRIFTED] += 1
        else:
            pool = pools[action]
            if s.totals[COUNT] < s.values.shape[0]:
                slot = s.totals[COUNT]
                s.totals[COUNT] += 1
            else:
                slot = _evict(s, pool)
                _, at = _find(s, hashes[i], action, task)  # the table has moved
            s.table[at] = slot
            s.hashes[slot], s.actions[slot], s.tasks[slot] = hashes[i], action, task
            s.pools[slot], s.values[slot] = pool, value
            s.born[slot] = s.totals[TICK]
            s.sizes[pool] += 1
            s.per_action[task, action] += 1
            s.totals[CREATED] += 1
        for d in range(dim):
            moved[i] |= s.keys[slot, d] != keys[i, d]
            s.keys[slot, d] = keys[i, d]
        s.ticks[slot], s.versions[slot], s.refs[slot] = s.totals[TICK], version, refs[i]
        slots[i] = slot


@njit(cache=True)
def find(s, hashes, task, num_actions, slots):
    """Slots of each state's actions in a task, -1 where unknown: slots [B,A]."""
    for b in range(hashes.shape[0]):
        for action in range(num_actions):
            slots[b, action], _ = _find(s, hashes[b], action, task)


@njit(cache=True)
def touch(ticks, totals, slots):
    """Mark slots as recalled now; negative ones are padding."""
    totals[TICK] += 1
    for slot in slots:
        if slot >= 0:
            ticks[slot] = totals[TICK]


@njit(cache=True)
def rebuild(s):
    """The table, sizes and empty queues from the slots themselves, after loading."""
    for i in range(s.table.shape[0]):
        s.table[i] = -1
    for pool in range(s.sizes.shape[0]):
        s.sizes[pool] = s.queued[pool] = 0
    s.per_action[:] = 0
    for slot in range(s.totals[COUNT]):
        _, at = _find(s, s.hashes[slot], s.actions[slot], s.tasks[slot])
        s.table[at] = slot
        s.sizes[s.pools[slot]] += 1
        s.per_action[s.tasks[slot], s.actions[slot]] += 1
