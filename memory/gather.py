"""Copies windows out of the ring: n-step rewards, and stacks with or without a random shift.

B items, n rewards, P = H * W pixels.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from memory.ring import STACK


@njit(cache=True)
def copy_shifted(source, target, width, dy, dx):
    """target[y, x] = source[y + dy, x + dx], both [H * W], the edge pixels repeated outwards.

    This is padding by replication and a crop (Kostrikov et al. 2021, DrQ, section 3.1). One copy
    of the whole frame by a constant offset, then the pixels that it brought from the wrong row.
    """
    size = len(source)
    height = size // width
    offset = dy * width + dx
    whole = target[max(0, -offset) : size - max(0, offset)]
    moved = source[max(0, offset) : size - max(0, -offset)]
    for i in range(len(whole)):
        whole[i] = moved[i]
    top, bottom = max(0, -dy), height - max(0, dy)  # rows that have a source of their own
    first, last = (width - dx, width) if dx > 0 else (0, -dx)  # columns that have none
    inside = width - 1 if dx > 0 else 0
    rows, origin = target.reshape((height, width)), source.reshape((height, width))
    edge = origin[top + dy : bottom + dy, inside]
    for x in range(first, last):
        column = rows[top:bottom, x]
        for y in range(len(column)):
            column[y] = edge[y]
    for y in range(top):
        for x in range(width):
            rows[y, x] = rows[top, x]
    for y in range(bottom, height):
        for x in range(width):
            rows[y, x] = rows[bottom - 1, x]


@njit(cache=True)
def stack_slots(ring, chosen):
    """int32 [B, 4]: slots of the frames that the environment showed at `chosen` [B], oldest
    first."""
    slots = np.empty((len(chosen), STACK), np.int32)
    slots[:, STACK - 1] = chosen
    for f in range(STACK - 2, -1, -1):  # one link of all stacks at a time: their waits overlap
        for b in range(len(chosen)):
            slots[b, f] = ring.slots[slots[b, f + 1]].prev
    return slots


@njit(cache=True)
def follow(ring, slots, steps):
    """Replace slots [B] by those of the observations `steps` [B] later in their streams."""
    for b in range(len(slots)):
        for _ in range(steps[b]):
            if ring.slots[slots[b]].next >= 0:
                slots[b] = ring.slots[slots[b]].next


@njit(cache=True)
def copy_stack(frames, slots, target, width, dy, dx):
    """The frames at `slots` [4], shifted alike, to target [4, P]."""
    for f in range(STACK):
        if dy == 0 and dx == 0:
            source, row = frames[slots[f]], target[f]
            for i in range(len(source)):
                row[i] = source[i]
        else:
            copy_shifted(frames[slots[f]], target[f], width, dy, dx)


@njit(cache=True)
def walk_windows(ring, chosen, action, rewards, steps, terminated, task):
    """Everything of a `Batch` but the pixels; returns the slots int32 [B] of obs_t.

    A window ends with its first termination, with its stream, or after n rewards.
    """
    ends = chosen.copy()
    running = np.ones(len(chosen), np.bool_)
    for k in range(rewards.shape[1]):
        for b in range(len(chosen)):
            if not running[b]:
                continue
            item = ring.slots[ends[b]]
            if k == 0:
                action[b], task[b] = item.action, item.task
            rewards[b, k] = item.reward
            steps[b], terminated[b] = k + 1, item.terminated
            if item.next >= 0:  # else a terminated game: obs_t is its last observation
                ends[b] = item.next
            running[b] = not item.terminated and ring.slots[ends[b]].held
    return ends


@njit(cache=True)
def gather_windows(
    ring, chosen, width, shifts, obs_tm1, action, rewards, steps, terminated, obs_t, task
):
    """Fill the arrays of a `Batch` for the slots `chosen` [B].

    rewards [B, n] gives n; shifts int64 [B, 4] are dy, dx of obs_tm1 and of obs_t.
    """
    ends = walk_windows(ring, chosen, action, rewards, steps, terminated, task)
    before, after = stack_slots(ring, chosen), stack_slots(ring, ends)
    for b in range(len(chosen)):
        copy_stack(ring.frames, before[b], obs_tm1[b], width, shifts[b, 0], shifts[b, 1])
        copy_stack(ring.frames, after[b], obs_t[b], width, shifts[b, 2], shifts[b, 3])


@njit(cache=True)
def gather_sequences(ring, chosen, width, shifts, frames, action, rewards, terminated, steps, task):
    """Fill the arrays of a `SequenceBatch` for the slots `chosen` [B]; action [B, K] gives K.

    frames [B, K + 4, P]; a sequence that ends before K steps repeats its last frame.
    """
    before = stack_slots(ring, chosen)
    for b in range(len(chosen)):
        slot, dy, dx = chosen[b], shifts[b, 0], shifts[b, 1]
        task[b] = ring.slots[slot].task
        copy_stack(ring.frames, before[b], frames[b, :STACK], width, dy, dx)
        running, k = True, 0
        for t in range(action.shape[1]):
            item = ring.slots[slot]
            if running:
                action[b, t], rewards[b, t], terminated[b, t] = (
                    item.action,
                    item.reward,
                    item.terminated,
                )
                k += 1
                if item.next >= 0:
                    slot = item.next
                running = not item.terminated and ring.slots[slot].held
            copy_shifted(ring.frames[slot], frames[b, STACK + t], width, dy, dx)
        steps[b] = k
