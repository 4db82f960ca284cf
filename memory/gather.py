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
    offset = dy * width + dx
    low, high = max(0, -offset), size - max(0, offset)
    for i in range(low, high):
        target[i] = source[i + offset]
    height = size // width
    top, bottom = max(0, -dy), height - max(0, dy)  # rows that have a source of their own
    if dx > 0:
        for y in range(top, bottom):
            edge = source[(y + dy) * width + width - 1]
            for x in range(width - dx, width):
                target[y * width + x] = edge
    elif dx < 0:
        for y in range(top, bottom):
            edge = source[(y + dy) * width]
            for x in range(-dx):
                target[y * width + x] = edge
    for y in range(top):
        for x in range(width):
            target[y * width + x] = target[top * width + x]
    for y in range(bottom, height):
        for x in range(width):
            target[y * width + x] = target[(bottom - 1) * width + x]


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
