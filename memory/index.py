"""Indices over the memory's keys: exact, cells, graph; `make_index` chooses by name or by size.

    index.put(slots [N], groups [N])       insert, or move after a key has changed
    index.refresh(slots [N], groups [N])   keys have moved a little (a gradient step)
    index.search(queries [B,D], k)         slots [B,G,k], squared distances [B,G,k]
    index.search(..., first, groups)       the same of `groups` groups from `first` on
    index.maintain(budget)                 bounded upkeep, entries to look at
    index.adjust(factor)                   look at so many times more entries in a search

A group is an action of a game (or all its actions together); each is searched for its own k
nearest.
All indices read the memory's own key array, never copy it, and compute the squared distances
they return directly from it, so equal keys have distance exactly 0.

`ivf` is the inverted file of `memory/cells.py`. The one of faiss reads about as fast, but has to
be trained (seconds, all at once), goes stale when a game or the encoder changes until it is
trained again, and returns distances that would have to be computed once more; so it is measured
in benchmarks/episodic.py and not offered.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from errors import UserError
from memory import cell_search, cell_upkeep, cells, flat
from memory.hnsw import HnswIndex

# Entries per group up to which `auto` scans exactly. The cells are as fast from about 500 and
# twice as fast here (crossover_us in benchmarks/results/episodic.json); being exact is worth that.
FLAT_UP_TO = 2048


class Index(Protocol):
    def put(self, slots: np.ndarray, groups: np.ndarray) -> None: ...
    def refresh(self, slots: np.ndarray, groups: np.ndarray) -> None: ...
    def search(
        self, queries: np.ndarray, k: int, first: int = 0, groups: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def maintain(self, budget: int) -> int: ...
    def adjust(self, factor: float) -> None: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


class FlatIndex:
    """Exact. Remembers only which group a slot is in."""

    def __init__(self, keys: np.ndarray, groups: int) -> None:
        self.keys, self.num_groups = keys, groups
        self.group = np.full(len(keys), -1, np.int32)
        self.stored = 0  # slots in use lie below this

    def put(self, slots: np.ndarray, groups: np.ndarray) -> None:
        self.group[slots] = groups
        if len(slots):
            self.stored = max(self.stored, int(slots.max()) + 1)

    def refresh(self, slots: np.ndarray, groups: np.ndarray) -> None:
        pass  # the scan reads the keys themselves

    def search(
        self, queries: np.ndarray, k: int, first: int = 0, groups: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(queries), groups or self.num_groups - first, k)
        slots, distances = np.empty(shape, np.int32), np.empty(shape, np.float32)
        flat.search(self.keys, self.group, self.stored, first, queries, k, slots, distances)
        return slots, distances

    def maintain(self, budget: int) -> int:
        return 0

    def adjust(self, factor: float) -> None:
        pass  # everything is looked at already

    def state_dict(self) -> dict:
        return {"group": self.group[: self.stored].copy()}

    def load_state_dict(self, state: dict) -> None:
        self.stored = len(state["group"])
        self.group[: self.stored] = state["group"]
        self.group[self.stored :] = -1


class CellIndex:
    """Approximate: inverted file with cells that split and dissolve.

    `effort`: about how many full cells a search visits per group. How many are needed for a
    recall of .95 depends on the game: 4 for a mixture of games, 10 for Ms. Pac-Man alone, so
    `EpisodicMemory.tune` adjusts it by sampled audits. The exact comparison covers `spare`
    candidates more than are asked for.
    """

    def __init__(self, keys: np.ndarray, groups: int, effort: float = 8.0, spare: int = 10) -> None:
        self.effort, self.spare, self.num_groups = float(effort), spare, groups
        self.cells = cells.allocate(keys, groups)

    def put(self, slots: np.ndarray, groups: np.ndarray) -> None:
        cell_upkeep.put(self.cells, slots, groups)

    def refresh(self, slots: np.ndarray, groups: np.ndarray) -> None:
        cell_upkeep.recode(self.cells, slots)

    def search(
        self, queries: np.ndarray, k: int, first: int = 0, groups: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(queries), groups or self.num_groups - first, k)
        slots, distances = np.empty(shape, np.int32), np.empty(shape, np.float32)
        cell_search.search(self.cells, first, queries, k, self.effort, self.spare, slots, distances)
        return slots, distances

    def maintain(self, budget: int) -> int:
        return int(cell_upkeep.maintain(self.cells, budget))

    def adjust(self, factor: float) -> None:
        self.effort = float(np.clip(self.effort * factor, 2.0, 64.0))

    def state_dict(self) -> dict:
        """All arrays but the keys, each cut after its last row in use."""
        used = {
            "blocks": int(np.flatnonzero(self.cells.owner >= 0).max(initial=-1)) + 1,
            "cells": int(np.flatnonzero(self.cells.site >= 0).max(initial=-1)) + 1,
            "coarse": int(np.flatnonzero(self.cells.coarse_cell[:, 0] >= 0).max(initial=-1)) + 1,
            "slots": int(np.flatnonzero(self.cells.place >= 0).max(initial=-1)) + 1,
        }
        arrays = {name: getattr(self.cells, name) for name in self.cells._fields[1:]}
        out = {
            name: array[: used.get(cells.ROWS.get(name), len(array))].copy()
            for name, array in arrays.items()
        }
        return {"effort": self.effort, "cells": out}

    def load_state_dict(self, state: dict) -> None:
        fresh = cells.allocate(self.cells.keys, self.num_groups)
        self.effort = float(state["effort"])
        for name, array in state["cells"].items():
            getattr(fresh, name)[: len(array)] = array
        self.cells = fresh


def make_index(kind: str, keys: np.ndarray, groups: int, tasks: int = 1) -> Index:
    """`kind` flat | ivf | hnsw | auto, over keys [C,D] with `groups` groups for each of `tasks`."""
    if kind == "auto":
        kind = "flat" if len(keys) <= FLAT_UP_TO * groups else "ivf"
    known = {"flat": FlatIndex, "ivf": CellIndex, "hnsw": HnswIndex}
    if kind not in known:
        raise UserError(f"memory.index={kind} is unknown: choose flat, ivf, hnsw or auto")
    return known[kind](keys, tasks * groups)
