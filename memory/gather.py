"""Copies windows out of the ring: n-step rewards, and stacks with or without a random shift.

B items, n rewards, P = H * W pixels.
"""

from __future__ import annotations

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
    for y in range(top, bottom):
        edge = origin[y + dy, inside]
        for x in range(first, last):
            rows[y, x] = edge
    for y in range(top):
        for x in range(width):
            rows[y, x] = rows[top, x]
    for y in range(bottom, height):
        for x in range(width):
            rows[y, x] = rows[bottom - 1, x]


@njit(cache=True)
def copy_stack(ring, slot, target, width, dy, dx):
    """The four frames that the environment showed at `slot`, oldest first, to target [4, P]."""
    for f in range(STACK - 1, -1, -1):
        if dy == 0 and dx == 0:
            source, row = ring.frames[slot], target[f]
            for i in range(len(source)):
                row[i] = source[i]
        else:
            copy_shifted(ring.frames[slot], target[f], width, dy, dx)
        slot = ring.slots[slot].prev


@njit(cache=True)
def gather_windows(
    ring, chosen, width, shifts, obs_tm1, action, rewards, steps, terminated, obs_t, task
):
    """Fill the arrays of a `Batch` for the slots `chosen` [B].

    rewards [B, n] gives n; shifts int64 [B, 4] are dy, dx of obs_tm1 and of obs_t. A window ends
    with its first termination, with its stream, or after n rewards.
    """
    n = rewards.shape[1]
    for b in range(len(chosen)):
        slot = chosen[b]
        task[b], action[b] = ring.slots[slot].task, ring.slots[slot].action
        copy_stack(ring, slot, obs_tm1[b], width, shifts[b, 0], shifts[b, 1])
        k = 0
        while True:
            item = ring.slots[slot]
            rewards[b, k] = item.reward
            k += 1
            if item.next >= 0:  # else a terminated game: obs_t is its last observation
                slot = item.next
            if item.terminated or k == n or not ring.slots[slot].held:
                terminated[b] = item.terminated
                break
        steps[b] = k
        copy_stack(ring, slot, obs_t[b], width, shifts[b, 2], shifts[b, 3])


@njit(cache=True)
def gather_sequences(ring, chosen, width, shifts, frames, action, rewards, terminated, steps, task):
    """Fill the arrays of a `SequenceBatch` for the slots `chosen` [B]; action [B, K] gives K.

    frames [B, K + 4, P]; a sequence that ends before K steps repeats its last frame.
    """
    for b in range(len(chosen)):
        slot, dy, dx = chosen[b], shifts[b, 0], shifts[b, 1]
        task[b] = ring.slots[slot].task
        copy_stack(ring, slot, frames[b, :STACK], width, dy, dx)
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
