"""Keys that nobody encodes anew are carried along with the encoder that has moved away from them.

Most entries of an old game have lost their frames. What the encoder has done since to the keys of
those that have not says what it has done to the rest: a linear map, fitted to their old and new
keys, is applied to all (drift compensation, Yu 2020, 2004.00440; with a learned linear map as in
Gomez-Villa 2024, 2407.08536). For keys of unit length

    W = argmin sum_i |k_i W - k'_i|^2 + ridge |W - I|^2,    k <- k W / |k W|

E entries, P anchors, D key dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from memory.episodic import EpisodicMemory

ANCHORS = 256  # entries of a game whose frames are there, followed from one time to the next
LOOKED_AT = 8 * ANCHORS  # entries that are tried for it
ENOUGH = 64  # anchors that must be left to fit the map to
RIDGE = 0.05  # of the mean diagonal of the normal equations

# refs [M] -> (keys [K, D] of those whose frames are there, there bool [M])
Encode = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def linear_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """W [D, D] with before [P, D] W near after [P, D]; near the identity in directions that the
    anchors say little about."""
    count, dim = before.shape
    x, y = before.astype(np.float64), after.astype(np.float64)
    ridge = RIDGE * count / dim * np.eye(dim)
    return np.linalg.solve(x.T @ x + ridge, x.T @ y + ridge).astype(np.float32)


class Carrier:
    """Carries the keys of all games of a memory, each by its own map."""

    def __init__(self, games: int, key_dim: int, seed: int) -> None:
        self.refs = np.full((games, ANCHORS), -1, np.int64)  # anchors by their names; -1 is none
        self.keys = np.zeros((games, ANCHORS, key_dim), np.float32)  # theirs when they were taken
        self.version = 0  # of the memory at that time
        self.rng = np.random.default_rng(seed)

    def carry(self, memory: EpisodicMemory, encode: Encode) -> None:
        """Move the keys by what has happened since the last call, and take new anchors."""
        for game in range(len(self.refs)):
            slots = memory.slots_of(game)
            if len(slots):
                self._carry(memory, encode, game, slots)
                self._take(memory, encode, game, slots)
        self.version = memory.version

    def _carry(self, memory: EpisodicMemory, encode: Encode, game: int, slots: np.ndarray) -> None:
        after, there = encode(self.refs[game])
        if len(after) < ENOUGH:
            return
        mapped = linear_map(self.keys[game, there], after)
        # An entry that was written or encoded in between has only the rest of the way to go.
        versions = memory.moments(slots).versions
        passed = (versions + 0.5 - self.version) / max(memory.version - self.version, 1)
        share = np.where(versions < memory.version, 1 - np.clip(passed, 0, 1), 0)
        slots, share = slots[share > 0], share[share > 0].astype(np.float32)[:, None]
        keys = memory.keys_at(slots)
        keys += share * (keys @ mapped - keys)
        memory.carry(slots, keys / np.linalg.norm(keys, axis=1, keepdims=True))

    def _take(self, memory: EpisodicMemory, encode: Encode, game: int, slots: np.ndarray) -> None:
        found, tried = 0, self.rng.permutation(slots)[:LOOKED_AT]
        for part in np.split(tried, range(ANCHORS, len(tried), ANCHORS)):
            named = memory.moments(part).refs
            keys, there = encode(named)
            memory.reembed(part[there], keys)
            end = min(found + len(keys), ANCHORS)
            self.refs[game, found:end] = named[there][: end - found]
            self.keys[game, found:end] = keys[: end - found]
            found = end
            if found == ANCHORS:
                break
        self.refs[game, found:] = -1

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        return {
            "refs": self.refs.copy(),
            "keys": self.keys.copy(),
            "version": self.version,
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.refs[:], self.keys[:] = state["refs"], state["keys"]
        self.version = state["version"]
        self.rng.bit_generator.state = state["rng"]
