"""The smallest few of many (value, id) pairs; ties go to the smaller id, so results are unique."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def select(value, ids, count, keep):
    """Bring the `keep` smallest of the first `count` pairs to the front (quickselect)."""
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) >> 1
        pivot, pivot_id = value[middle], ids[middle]
        i, j = low, high
        while i <= j:
            while value[i] < pivot or (value[i] == pivot and ids[i] < pivot_id):
                i += 1
            while value[j] > pivot or (value[j] == pivot and ids[j] > pivot_id):
                j -= 1
            if i <= j:
                value[i], value[j] = value[j], value[i]
                ids[i], ids[j] = ids[j], ids[i]
                i += 1
                j -= 1
        if keep - 1 <= j:
            high = j
        elif keep - 1 >= i:
            low = i
        else:
            return


@njit(cache=True)
def sort_pairs(value, ids, count):
    """Ascending order of the first `count` pairs: shell sort, good for some tens of them."""
    gap = 1
    while gap * 3 + 1 < count:
        gap = gap * 3 + 1
    while gap > 0:
        for i in range(gap, count):
            v, s, j = value[i], ids[i], i - gap
            while j >= 0 and (value[j] > v or (value[j] == v and ids[j] > s)):
                value[j + gap], ids[j + gap] = value[j], ids[j]
                j -= gap
            value[j + gap], ids[j + gap] = v, s
        gap //= 3
