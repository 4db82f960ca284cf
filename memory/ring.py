"""The ring of frames: what is stored where, and which transitions can be drawn.

Every slot holds one frame, the newest of one observation, and the slots of one environment are
linked: `prev` leads to the frame before it in the stack, `next` to the next observation of the
same stream. Slots are filled in the order of arrival, whatever environment they come from, so
that the ring has a single write head, and a checkpoint finds what is new in one piece.

    stack of slot s      [prev^3(s), prev^2(s), prev(s), s]
    window of slot s     s, next(s), next^2(s), ...

- A stream begins with a whole stack. Blank (all zero) frames at its start are not stored: they
  are the slot `blank` = S, which is never written. Others take slots that are no transitions.
- A stream ends with the observation that its last transitions bootstrap from (truncation, cut)
  in a slot that is no transition, or, after a termination, without one (`next` = -1).
- A transition waits until `n_max` later observations are stored or the stream has ended; only
  then it joins the `ready` list. So every window is complete when it is drawn.
- Before a slot is overwritten, the (up to four) transitions whose stack contains its frame leave
  the ready list. Windows need no such care: all their slots are younger.

N environments, S slots, P pixels a frame, n_max the longest window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from memory.sum_tree import make_tree, set_leaf

STACK = 4
PUSHED, READY, HELD, TAIL = range(4)  # entries of Ring.counts

SLOT = np.dtype(
    [
        ("prev", np.int32),
        ("next", np.int32),  # -1: none
        ("reward", np.float32),
        ("action", np.int32),
        ("task", np.int16),
        ("terminated", np.uint8),
        ("held", np.uint8),  # 1: a transition, ready or waiting
    ]
)


class Ring(NamedTuple):
    """Arrays that the kernels below work on."""

    frames: np.ndarray  # uint8 [S + 1, P]; row S is blank
    slots: np.ndarray  # SLOT [S + 1]
    ready: np.ndarray  # int32 [S]: its first counts[READY] entries are slots that can be drawn
    place: np.ndarray  # int32 [S]: position in `ready`, or -1
    last: np.ndarray  # int32 [N]: slot of the newest transition of a running stream, or -1
    waiting: np.ndarray  # int32 [N, n_max]: transitions with an incomplete window, oldest first
    waits: np.ndarray  # int32 [N]: how many
    counts: np.ndarray  # int64 [4]: slots ever pushed, ready, held, first slot that may be held
    tree: np.ndarray  # float64 sum tree over the slots; empty without priorities
    top: np.ndarray  # float64 [1]: the greatest leaf ever set, given to new transitions


def make_ring(frames: np.ndarray, num_envs: int, n_max: int, prioritised: bool) -> Ring:
    """An empty ring over the rows of `frames` uint8 [S + 1, P], all zero."""
    size = len(frames) - 1
    slots = np.zeros(size + 1, SLOT)
    slots[size]["prev"], slots[size]["next"] = size, -1
    return Ring(
        frames,
        slots,
        np.zeros(size, np.int32),
        np.full(size, -1, np.int32),
        np.full(num_envs, -1, np.int32),
        np.zeros((num_envs, n_max), np.int32),
        np.zeros(num_envs, np.int32),
        np.zeros(4, np.int64),
        make_tree(size) if prioritised else np.zeros(0),
        np.ones(1),
    )


@njit(cache=True)
def _same(frame, row):
    differences = np.uint8(0)
    for i in range(len(row)):  # without a way out, so that it runs many pixels at a time
        differences |= frame[i] ^ row[i]
    return differences == 0


@njit(cache=True)
def _release(ring, slot):
    """The transition can be drawn from now on."""
    ring.place[slot] = ring.counts[READY]
    ring.ready[ring.counts[READY]] = slot
    ring.counts[READY] += 1
    if len(ring.tree):
        set_leaf(ring.tree, slot, ring.top[0])


@njit(cache=True)
def _evict(ring, slot):
    """The transition is gone; the last of the ready list takes its place there."""
    ring.slots[slot].held = 0
    ring.counts[HELD] -= 1
    place = ring.place[slot]
    if place < 0:
        return
    ring.counts[READY] -= 1
    moved = ring.ready[ring.counts[READY]]
    ring.ready[place] = moved
    ring.place[moved] = place
    ring.place[slot] = -1
    if len(ring.tree):
        set_leaf(ring.tree, slot, 0.0)


@njit(cache=True)
def _push(ring, frame, prev):
    """Store a frame in the next slot, after evicting whoever still needs the old one there."""
    blank = len(ring.ready)
    slot = ring.counts[PUSHED] % blank
    if ring.counts[PUSHED] >= blank:
        needs = slot
        for _ in range(STACK):
            if ring.slots[needs].held:
                _evict(ring, needs)
            needs = ring.slots[needs].next
            if needs < 0:
                break
    ring.counts[PUSHED] += 1
    row = ring.frames[slot]
    for i in range(len(row)):
        row[i] = frame[i]
    item = ring.slots[slot]
    item.prev, item.next = prev, -1
    item.reward, item.action, item.task, item.terminated, item.held = 0, 0, 0, 0, 0
    if prev != blank:
        ring.slots[prev].next = slot
    return slot


@njit(cache=True)
def _push_before(ring, stack):
    """Store what an initial stack [4, P] shows before its newest frame; returns its last slot."""
    prev = len(ring.ready)
    for f in range(STACK - 1):
        if prev != len(ring.ready) or stack[f].any():
            prev = _push(ring, stack[f], prev)
    return prev


@njit(cache=True)
def _push_transition(ring, e, frame, prev, capacity):
    slot = _push(ring, frame, prev)
    counts = ring.counts
    if ring.waits[e] == ring.waiting.shape[1]:
        _release(ring, ring.waiting[e, 0])
        ring.waiting[e, :-1] = ring.waiting[e, 1:].copy()
        ring.waits[e] -= 1
    ring.waiting[e, ring.waits[e]] = slot
    ring.waits[e] += 1
    ring.last[e] = slot
    ring.slots[slot].held = 1
    counts[HELD] += 1
    counts[TAIL] = max(counts[TAIL], counts[PUSHED] - len(ring.ready))
    while counts[HELD] > capacity:
        oldest = counts[TAIL] % len(ring.ready)
        if ring.slots[oldest].held:
            _evict(ring, oldest)
        counts[TAIL] += 1
    return slot


@njit(cache=True)
def _end_stream(ring, e):
    """Nothing follows: all windows are complete now."""
    for w in range(ring.waits[e]):
        _release(ring, ring.waiting[e, w])
    ring.waits[e] = 0
    ring.last[e] = -1


@njit(cache=True)
def _end_unknown(ring, e):
    """The stream broke off. What its last action led to was never seen: unless that was a
    termination, this transition is dropped and its observation is what the others end with."""
    last = ring.slots[ring.last[e]]
    if not last.terminated:
        ring.waits[e] -= 1
        last.held = 0
        ring.counts[HELD] -= 1
    _end_stream(ring, e)


@njit(cache=True)
def _continues(ring, e, stack):
    """The first three frames of `stack` [4, P] are the last three of the stream."""
    slot = ring.last[e]
    for f in range(STACK - 2, -1, -1):
        if not _same(stack[f], ring.frames[slot]):
            return False
        slot = ring.slots[slot].prev
    return True


@njit(cache=True)
def first_break(ring, obs, first):
    """The first environment whose obs [N, 4, P] does not continue its stream though it should,
    or -1."""
    for e in range(len(first)):
        if ring.last[e] >= 0 and not first[e] and not _continues(ring, e, obs[e]):
            return e
    return -1


@njit(cache=True)
def add_step(
    ring, capacity, obs_tm1, action, reward, terminated, truncated, first, task, final_obs
):
    """Append one vector step; obs_tm1 and final_obs are [N, 4, P] (final_obs may have no rows if
    nothing is truncated)."""
    for e in range(len(action)):
        if first[e] and ring.last[e] >= 0:
            _end_unknown(ring, e)
        prev = ring.last[e]
        if prev < 0:
            prev = _push_before(ring, obs_tm1[e])
        slot = _push_transition(ring, e, obs_tm1[e, STACK - 1], prev, capacity)
        item = ring.slots[slot]
        item.action, item.reward, item.task = action[e], reward[e], task
        item.terminated = terminated[e]
        if truncated[e]:
            _push(ring, final_obs[e, STACK - 1], slot)
            _end_stream(ring, e)


@njit(cache=True)
def cut_streams(ring, obs):
    """End all running streams at obs [N, 4, P], or before it where it does not continue them."""
    for e in range(len(ring.last)):
        if ring.last[e] < 0:
            continue
        if _continues(ring, e, obs[e]):
            _push(ring, obs[e, STACK - 1], ring.last[e])
            _end_stream(ring, e)
        else:
            _end_unknown(ring, e)
