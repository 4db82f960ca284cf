"""Running figures of what the memory is asked and answers, for the log.

They are exponential means, so that looking at them changes nothing and a resumed run goes on with
the same numbers.
"""

from __future__ import annotations

import numpy as np

from memory.episodic import EpisodicMemory
from memory.recall import EpisodicRead

RATE = 0.01  # 1 / vector step
AUDIT_RATE = 0.1  # 1 / audit
NAMES = ("hits", "confidence", "action_confidence", "nearest", "age")


class Monitor:
    def __init__(self) -> None:
        self.means = dict.fromkeys((*NAMES, "audit"), float("nan"))

    def saw(self, read: EpisodicRead, action: np.ndarray, memory: EpisodicMemory) -> None:
        """A decision: what was read, and the actions [N] that were taken."""
        rows = np.arange(len(action))
        slots, weights = read.indices[rows, action], read.weights[rows, action]  # [N,p]
        known = memory.moments(slots)
        mass = float(weights.sum())
        own = {
            "hits": float(read.hits.any(1).mean()),
            "confidence": float(read.confidence.mean()),
            "action_confidence": float(read.action_confidence[rows, action].mean()),
        }
        if mass > 0:
            own["age"] = float((weights * known.ages).sum() / mass)
            nearest = read.distances[rows, action, 0]
            own["nearest"] = float(nearest[np.isfinite(nearest)].mean())
        self._follow(own, RATE)

    def audited(self, recall: float) -> None:
        """Recall of the index against exact search, from one sampled audit."""
        if np.isfinite(recall):
            self._follow({"audit": recall}, AUDIT_RATE)

    def _follow(self, numbers: dict[str, float], rate: float) -> None:
        for name, value in numbers.items():
            old = self.means[name]
            self.means[name] = value if np.isnan(old) else old + rate * (value - old)

    def scalars(self) -> dict[str, float]:
        m = self.means
        return {
            "memory/state_hit_rate": m["hits"],
            "memory/confidence": m["confidence"],
            "memory/confidence_taken": m["action_confidence"],
            "memory/nearest_distance": m["nearest"],
            "memory/recalled_age": m["age"],
            "memory/index_recall": m["audit"],
        }

    def state_dict(self) -> dict:
        return dict(self.means)

    def load_state_dict(self, state: dict) -> None:
        self.means = dict(state)
