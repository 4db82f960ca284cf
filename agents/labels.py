"""What an agent calls the games it plays when nobody tells it their names.

    task_labels=oracle        it is told which game it plays
    task_labels=boundaries    it is told that the game changes, not to which
    task_labels=none          it notices changes itself (agents/change.py)

Without names it numbers its own *contexts*, 0, 1, 2, ... Whatever else would go by the game (the
replay's task column, cloning, shares of memory, exploration) goes by the context. An action mask
would betray the game, so all 18 actions are allowed in every game; an evaluation tells as little.
That episodes stop at a change is known to any agent: they end by truncation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from agents.change import ChangeConfig, ChangeDetector, screen

if TYPE_CHECKING:
    from agents.agent import Agent

TASK_LABELS = ("oracle", "boundaries", "none")


class Contexts:
    """The contexts of one agent.

    Args:
        labels: "boundaries" or "none".
        config: how changes are noticed.
        agent: whose contexts; its masks [C, A] say how many there can be.
    """

    def __init__(self, labels: str, config: ChangeConfig, agent: Agent) -> None:
        self.config, self.agent = config, agent
        self.most = len(agent.masks)
        self.used = 0  # contexts so far
        self.detector = ChangeDetector(config) if labels == "none" else None
        self.alarms = 0
        self._events: list[dict[str, float]] = []

    # -- changes --------------------------------------------------------------------------------
    def begin_task(self) -> None:
        """A task begins: heard where boundaries are told, and at the very first."""
        if self.detector is None or self.used == 0:
            self._enter()

    def end_task(self) -> None:
        """A task ends: heard where boundaries are told."""
        if self.detector is None:
            self.agent.leave()

    def see(self, obs: np.ndarray) -> None:
        """A vector step's observations [N, 4, 84, 84], whose latents the agent may know."""
        if self.detector is None:
            return
        signals = screen(obs) if self.config.signal == "screen" else self._spikes(obs)
        score = self.detector.sum
        if self.detector.see(signals):
            self.alarms += 1
            self.agent.leave()
            self._enter()
            self._events.append({"context": self.agent.game, "score": score})

    @torch.no_grad()
    def _spikes(self, obs: np.ndarray) -> np.ndarray:
        """Latents [N, L] of the observations that the agent has just acted on."""
        agent = self.agent
        if agent.latent is None:  # it acted at random
            network = agent.acting_network
            agent.latent = network(torch.from_numpy(obs).to(agent.device)).encoding.latent
        return agent.latent.double().cpu().numpy()

    def _enter(self) -> None:
        """A new context; the last one again when there is no further one."""
        self.used = min(self.used + 1, self.most)
        self.agent.enter(self.used - 1)
        self.agent.share(self.used)

    def now(self, obs: np.ndarray) -> int:
        """The context that observations [N, ...] of an evaluation are judged by."""
        return self.agent.game

    # -- numbers and state ----------------------------------------------------------------------
    def events(self) -> list[dict[str, float]]:
        """Alarms since the last call."""
        out, self._events = self._events, []
        return out

    def scalars(self) -> dict[str, float]:
        out = {"change/context": float(self.agent.game), "change/contexts": float(self.used)}
        if self.detector is not None:
            out |= {"change/alarms": float(self.alarms)} | self.detector.scalars()
        return out

    def state_dict(self) -> dict:
        return {
            "used": self.used,
            "alarms": self.alarms,
            "detector": None if self.detector is None else self.detector.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.used, self.alarms = state["used"], state["alarms"]
        if self.detector is not None:
            self.detector.load_state_dict(state["detector"])
        self.agent.share(self.used)
