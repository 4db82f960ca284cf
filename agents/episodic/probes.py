"""What is left of an old game: moments kept aside when its visit ended, asked again later.

For each game the newest moments whose returns were known at the end of its visit: frames, action,
return. At every line of the log the memory is asked for them: how many are still stored
(`kept`), and how far its value is from that return (`error`, root mean square, in units of the
game's own spread of returns at the time). With a moving encoder the frames are encoded by the
network of the day, as they would be if the game came back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agents.episodic.trails import Returns
from memory import ReplayBuffer

if TYPE_CHECKING:
    from agents.episodic.remember import RememberingAgent

COUNT = 64  # moments per game, every EVERY-th of the last COUNT * EVERY
EVERY = 8


class Probe(NamedTuple):
    """P moments of a game."""

    obs: np.ndarray  # uint8 [P, 4, 84, 84]
    actions: np.ndarray  # int64 [P]
    returns: np.ndarray  # float32 [P]


class Probes:
    def __init__(self, games: int) -> None:
        self.frozen: list[Probe | None] = [None] * games
        self.recent: deque[tuple[int, int, float]] = deque(maxlen=COUNT)  # ref, action, return
        self.seen = 0

    def add(self, game: int, returns: Returns) -> None:
        for ref, action, value in zip(returns.steps.ref, returns.steps.action, returns.returns):
            self.seen += 1
            if self.seen % EVERY == 0 and ref >= 0:
                self.recent.append((int(ref), int(action), float(value)))

    def freeze(self, game: int, replay: ReplayBuffer) -> None:
        """The visit of a game ends: keep its newest moments, frames and all."""
        refs, actions, values = (np.array(x) for x in zip(*self.recent)) if self.recent else (
            np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))  # fmt: skip
        obs, there = replay.observations(refs)
        if there.any():
            self.frozen[game] = Probe(obs, actions[there], values[there].astype(np.float32))
        self.recent.clear()

    def scalars(self, agent: RememberingAgent) -> dict[str, float]:
        """memory/kept/<game> and memory/error/<game> of each game that has been left."""
        out = {}
        for game, probe in enumerate(self.frozen):
            if probe is None:
                continue
            rows = np.arange(len(probe.actions))
            read = agent.memory.read(
                agent.keys_of(probe.obs), agent.hashes(probe.obs), game,
                exact=agent.exact, recall=False,
            )  # fmt: skip
            miss = read.q[rows, probe.actions] - probe.returns
            spread = max(float(probe.returns.std()), 1e-6)
            out[f"memory/kept/{game}"] = float(read.hits[rows, probe.actions].mean())
            out[f"memory/error/{game}"] = float(np.sqrt((miss**2).mean())) / spread
        return out

    def state_dict(self) -> dict[str, Any]:
        return {
            "frozen": [None if p is None else p._asdict() for p in self.frozen],
            "recent": [list(x) for x in self.recent],
            "seen": self.seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.frozen = [None if p is None else Probe(**p) for p in state["frozen"]]
        self.recent = deque((tuple(x) for x in state["recent"]), maxlen=COUNT)
        self.seen = state["seen"]
