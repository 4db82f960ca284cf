"""Checks at the border of the episodic memory: bad input is named, never stored."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def positive(name: str, value: float, most: float = np.inf) -> None:
    if not 0 < value <= most:
        bound = "" if most == np.inf else f" and at most {most}"
        raise ValueError(f"{name} must be positive{bound}, not {value}")


def choice(name: str, value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"{name} {value!r} is unknown: choose one of {', '.join(known)}")
    return value


def as_keys(keys: np.ndarray, dim: int) -> np.ndarray:
    """Keys [N,D] as contiguous float32, finite."""
    keys = np.ascontiguousarray(keys, np.float32)
    if keys.ndim != 2 or keys.shape[1] != dim:
        raise ValueError(f"keys must have shape [N, {dim}], not {list(keys.shape)}")
    if not np.isfinite(keys).all():
        row = int(np.flatnonzero(~np.isfinite(keys).all(1))[0])
        raise ValueError(f"key {row} of {len(keys)} is not finite")
    return keys


def _integers(name: str, array: np.ndarray, count: int) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be {count} integers, not {array.dtype} {list(array.shape)}")
    return array


def as_actions(actions: np.ndarray, count: int, num_actions: int) -> np.ndarray:
    """Actions [N] as int64 in [0, num_actions)."""
    actions = _integers("actions", actions, count).astype(np.int64)
    wrong = (actions < 0) | (actions >= num_actions)
    if wrong.any():
        raise ValueError(f"action {actions[wrong][0]} is not one of {num_actions}")
    return actions


def as_hashes(hashes: np.ndarray, count: int) -> np.ndarray:
    """64-bit numbers [N] as int64; unsigned ones keep their bits."""
    hashes = _integers("hashes and refs", hashes, count)
    return hashes.view(np.int64) if hashes.dtype == np.uint64 else hashes.astype(np.int64)


def as_values(values: np.ndarray, count: int) -> np.ndarray:
    """Values [N] as float32, finite."""
    values = np.ascontiguousarray(values, np.float32)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(f"values must be {count} finite numbers, shape {list(values.shape)}")
    return values
