"""Graph index (faiss HNSW), one graph per group. Fast to read; kept for comparison.

HNSW cannot delete. A key that moves or goes leaves a dead node behind, which a search filters
out; when the dead outnumber the living, the graph is built anew, at about 50 microseconds a key
in one go. So a write is cheap on average and now and then stops the program for seconds, which
is why `auto` never chooses this index, and why NEC, whose every update moves the keys of a whole
batch's neighbours, is refused it (training/config.py).
"""

from __future__ import annotations

import faiss
import numpy as np

LINKS = 16  # edges per node and level (twice that at the bottom)
BUILD = 64  # width of the search that places a new node


class HnswIndex:
    def __init__(self, keys: np.ndarray, groups: int, width: int = 64) -> None:
        """`width`: candidates of a search (efSearch); it is raised to 2 k where that is more."""
        self.keys, self.width = keys, width
        self.node = np.full(len(keys), -1, np.int64)  # [C] node of a slot in its group's graph
        self.group = np.full(len(keys), -1, np.int32)  # [C]
        self.graphs = [self._graph() for _ in range(groups)]
        self.slots = [np.zeros(0, np.int32) for _ in range(groups)]  # slot of a node, -1 dead

    def _graph(self) -> faiss.IndexHNSWFlat:
        graph = faiss.IndexHNSWFlat(self.keys.shape[1], LINKS)
        graph.hnsw.efConstruction = BUILD
        return graph

    @staticmethod
    def _add(graph: faiss.IndexHNSWFlat, keys: np.ndarray) -> None:
        """Insert keys [N,D], always in the same way.

        A node's level is random, and faiss does not save its generator: it is set anew by the
        number of nodes, so that a restored graph goes on as the saved one. And of several threads
        the quicker one decides on the edges.
        """
        graph.hnsw.rng = faiss.RandomGenerator(graph.ntotal)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            graph.add(keys)
        finally:
            faiss.omp_set_num_threads(threads)

    def put(self, slots: np.ndarray, groups: np.ndarray) -> None:
        """Insert slots [N] into groups [N], or move those present, by their keys as of now."""
        slots, last = np.unique(slots[::-1], return_index=True)
        groups = groups[::-1][last]
        for group in np.unique(groups):
            mine = slots[groups == group].astype(np.int32)
            self._kill(mine)
            first = self.graphs[group].ntotal
            self._add(self.graphs[group], self.keys[mine])
            self.slots[group] = np.append(self.slots[group], mine)
            self.node[mine] = np.arange(first, first + len(mine))
            self.group[mine] = group
        for group, names in enumerate(self.slots):
            alive = names[names >= 0]
            if len(names) - len(alive) > max(len(alive), 256):
                self.graphs[group] = self._graph()
                self._add(self.graphs[group], self.keys[alive])
                self.slots[group] = alive
                self.node[alive] = np.arange(len(alive))

    refresh = put

    def _kill(self, slots: np.ndarray) -> None:
        for slot in slots[self.node[slots] >= 0]:
            self.slots[self.group[slot]][self.node[slot]] = -1

    def search(
        self, queries: np.ndarray, k: int, first: int = 0, groups: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots [B,G,k] int32 and exact squared distances [B,G,k] float32, ascending."""
        graphs = self.graphs[first:][:groups]
        shape = (len(queries), len(graphs), k)
        out, distances = np.full(shape, -1, np.int32), np.full(shape, np.inf, np.float32)
        for group, graph in enumerate(graphs):
            names = self.slots[first + group]
            if not len(names):
                continue
            alive = np.packbits(names >= 0, bitorder="little")
            options = faiss.SearchParametersHNSW(
                efSearch=max(self.width, 2 * k), sel=faiss.IDSelectorBitmap(alive)
            )
            _, nodes = graph.search(queries, k, params=options)
            found = np.where(nodes >= 0, names[nodes], -1)
            gaps = self.keys[found] - queries[:, None]  # computed directly, as the kernel needs
            square = np.where(found >= 0, np.einsum("bkd,bkd->bk", gaps, gaps), np.inf)
            order = np.lexsort((found, square))
            out[:, group] = np.take_along_axis(found, order, 1)
            distances[:, group] = np.take_along_axis(square, order, 1)
        return out, distances

    def maintain(self, budget: int) -> int:
        return 0

    def adjust(self, factor: float) -> None:
        self.width = int(np.clip(np.rint(self.width * factor), 16, 1024))

    def state_dict(self) -> dict:
        return {
            "width": self.width,
            "node": self.node,
            "group": self.group,
            "slots": list(self.slots),
            "graphs": [faiss.serialize_index(graph) for graph in self.graphs],
        }

    def load_state_dict(self, state: dict) -> None:
        self.width = int(state["width"])
        self.node[:], self.group[:] = state["node"], state["group"]
        self.slots = [np.array(slots, np.int32) for slots in state["slots"]]
        self.graphs = [faiss.deserialize_index(np.asarray(g)) for g in state["graphs"]]
