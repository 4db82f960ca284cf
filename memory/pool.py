"""Output arrays that are used again as soon as nobody holds them.

A batch of observations is large enough for the allocator to fetch it from the system each time,
and the page faults cost more than the copy into it.
"""

from __future__ import annotations

import sys

import numpy as np


def _references(arrays: list[np.ndarray], i: int) -> int:
    return sys.getrefcount(arrays[i])


_IDLE = _references([np.empty(0)], 0)  # what the list and the call itself account for


class ArrayPool:
    """Hands out uint8 arrays. An array comes back by itself: it is given out again once no
    other reference to it exists (views and torch tensors made from it count as references).
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._arrays: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of this shape with arbitrary content that nobody else can see."""
        arrays = self._arrays
        for i in range(len(arrays)):
            if _references(arrays, i) == _IDLE and arrays[i].shape == shape:
                return arrays[i]
        array = np.empty(shape, np.uint8)
        arrays.append(array)
        if len(arrays) > self._size:
            del arrays[0]
        return array
