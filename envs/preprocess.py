"""The frame preprocessing of ale-py's vector class, for emulators that are run one by one.

Two raw grey frames (210 x 160; some games have 250 lines) -> pixelwise maximum -> 84 x 84 by area
averaging, in float32 and in OpenCV's order of summation, so that the bytes are the same as the
native class's.
"""

import functools

import numpy as np
from numba import njit

SIZE = 84


@functools.cache
def area_weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Area averaging along one axis, source > target.

    Returns (start int64 [target], weights float32 [target, K]): output i sums weights[i, k]
    times input start[i] + k; a weight is the share of the output's extent that the input covers.
    Shares under a thousandth of a pixel are rounding and count as none.
    """
    scale = source / target
    start = np.zeros(target, dtype=np.int64)
    weights = np.zeros((target, int(np.ceil(scale)) + 1), dtype=np.float32)
    for i in range(target):
        low, high = i * scale, min((i + 1) * scale, source)
        first = int(np.floor(low))
        if first + 1 - low <= 1e-3:
            first += 1
        start[i] = first
        for k in range(weights.shape[1]):
            covered = min(high, first + k + 1) - max(low, first + k)
            if covered > 1e-3:
                weights[i, k] = covered / (high - low)
    return start, weights


def pool_and_resize(older: np.ndarray, newer: np.ndarray, out: np.ndarray) -> None:
    """Write the maximum of two raw frames uint8 [H, W] to out uint8 [84, 84], averaged.

    The maximum stays in `older`, as in the native class (whoever steps on without taking two new
    frames, at the end of a game, sees it again).
    """
    height, width = older.shape
    _pool_and_resize(older, newer, out, *area_weights(width, SIZE), *area_weights(height, SIZE))


@njit(cache=True)
def _pool_and_resize(older, newer, out, x_start, x_weights, y_start, y_weights):
    for y in range(older.shape[0]):
        for x in range(older.shape[1]):
            older[y, x] = max(older[y, x], newer[y, x])
    row = np.empty(out.shape[1], dtype=np.float32)
    total = np.empty(out.shape[1], dtype=np.float32)
    for i in range(out.shape[0]):
        total[:] = np.float32(0.0)
        for ky in range(y_weights.shape[1]):
            weight = y_weights[i, ky]
            if weight == 0.0:
                continue
            y = y_start[i] + ky
            for j in range(out.shape[1]):
                row[j] = np.float32(0.0)
                for kx in range(x_weights.shape[1]):
                    if x_weights[j, kx] != 0.0:
                        row[j] += np.float32(older[y, x_start[j] + kx]) * x_weights[j, kx]
            for j in range(out.shape[1]):
                total[j] += weight * row[j]
        for j in range(out.shape[1]):
            out[i, j] = np.uint8(np.rint(total[j]))
