"""What an agent calls the games it plays when nobody tells it their names.

    task_labels=oracle        it is told which game it plays
    task_labels=boundaries    it is told that the game changes, not to which
    task_labels=none          it notices changes itself (agents/change.py)

Without names it numbers its own *contexts*, 0, 1, 2, ... Whatever else would go by the game (the
replay's task column, cloning, shares of memory, exploration) goes by the context. A context whose
screen looks like what comes after a change is entered again; otherwise a new one is opened. What
replay has stored of the running episodes since the screens became unusual is put to that context,
too: the rows of other contexts are cloned, and the old network would teach a new game's first
moments. An action mask
would betray the game, so all 18 actions are allowed in every game. An evaluation tells as little:
each decision is judged by the context that its screen is nearest to.

That episodes stop at a change is known to any agent: they end there as by a truncation. One that is
told nothing takes from it that a game does not change within an episode (agents/change.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from agents.change import ChangeConfig, ChangeDetector, Usual, screen

if TYPE_CHECKING:
    from agents.agent import Agent

TASK_LABELS = ("oracle", "boundaries", "none")


class Contexts:
    """The contexts of one agent.

    Args:
        labels: "boundaries" or "none".
        config: how changes are noticed and contexts known again.
        agent: whose contexts; its masks [C, A] say how many there can be.
    """

    def __init__(self, labels: str, config: ChangeConfig, agent: Agent) -> None:
        self.config, self.agent = config, agent
        self.most = len(agent.masks)
        self.screens: list[Usual] = []  # what is usual on screen in each context so far
        self.detector = ChangeDetector(config) if labels == "none" else None
        self.changed = False  # told of a boundary; what comes after it is looked at first
        self.alarms = 0
        self._events: list[dict[str, float]] = []

    # -- changes --------------------------------------------------------------------------------
    def begin_task(self) -> None:
        """A task begins: heard where boundaries are told, and at the very first."""
        if not self.screens:
            self._enter(0)
        elif self.detector is None:
            self.changed = True

    def end_task(self) -> None:
        """A task ends: heard where boundaries are told."""
        if self.detector is None:
            self.agent.leave()

    def see(self, obs: np.ndarray, first: np.ndarray) -> None:
        """A vector step's observations [N, 4, 84, 84], which the agent has just acted on; first
        bool [N]: they begin an episode."""
        signals, detector = {"screen": screen(obs)}, self.detector
        if detector is None:
            if self.changed:
                self._enter(self._context_of(signals["screen"]))
                self.changed = False
            self.screens[self.agent.game].learn(signals["screen"])
            return
        if self.config.signal != "screen":
            signals["spikes"] = self._spikes(obs)
        if detector.see(signals, first):
            context = self._context_of(signals["screen"])
            if context == self.agent.game:  # its spikes alone have moved, or it is the nearest
                detector.begin(self.screens[context])
                return
            event = {"left": self.agent.game, "score": detector.sum}
            before = detector.unusual - 1  # vector steps of the new context; this one is to come
            self.alarms += 1
            self.agent.replay.relabel(before, context)  # first: what is left is not of these
            self.agent.leave()
            self._enter(context)
            self._events.append(event | {"context": context})

    @torch.no_grad()
    def _spikes(self, obs: np.ndarray) -> np.ndarray:
        """Latents [N, L] of the observations that the agent has just acted on."""
        agent = self.agent
        if agent.latent is None:  # it acted at random
            network = agent.deciding_network()
            agent.latent = network(torch.from_numpy(obs).to(agent.device)).encoding.latent
        return agent.latent.double().cpu().numpy()

    def _context_of(self, blocks: np.ndarray) -> int:
        """The context that screens [N, 144] belong to, or the number of a new one; the nearest
        one where no further one can be had."""
        far = self.log_distances(blocks).mean(1)
        known = self.config.recognise and far.min() < self.config.slack
        if known or len(self.screens) == self.most:
            return int(far.argmin())
        return len(self.screens)

    def _enter(self, context: int) -> None:
        """Enter a context, or the first that there is not yet."""
        if context == len(self.screens):
            self.screens.append(Usual("screen", self.config.memory))
        self.agent.enter(context)
        self.agent.share(len(self.screens))
        if self.detector is not None:
            self.detector.begin(self.screens[context])

    def log_distances(self, blocks: np.ndarray) -> np.ndarray:
        """Log distances [C, N] of screens [N, 144] from what is usual in each context; infinite
        for one of which nothing has been seen."""
        unseen = np.full(len(blocks), np.inf)
        return np.stack([u.log_distances(blocks) if u.count else unseen for u in self.screens])

    def of_each(self, obs: np.ndarray) -> np.ndarray:
        """The contexts [N] that observations [N, 4, 84, 84] of an evaluation belong to, each by
        itself."""
        if not any(usual.count for usual in self.screens):
            return np.full(len(obs), self.agent.game)
        return self.log_distances(screen(obs)).argmin(0)

    def of_all(self, obs: np.ndarray) -> int:
        """The context that they belong to, taken together."""
        if not any(usual.count for usual in self.screens):
            return self.agent.game
        return int(self.log_distances(screen(obs)).mean(1).argmin())

    # -- numbers and state ----------------------------------------------------------------------
    def events(self) -> list[dict[str, float]]:
        """Alarms since the last call."""
        out, self._events = self._events, []
        return out

    def scalars(self) -> dict[str, float]:
        out = {
            "change/context": float(self.agent.game),
            "change/contexts": float(len(self.screens)),
        }
        if self.detector is not None:
            out |= {"change/alarms": float(self.alarms)} | self.detector.scalars()
        return out

    def state_dict(self) -> dict:
        return {
            "screens": [usual.state_dict() for usual in self.screens],
            "changed": self.changed,
            "alarms": self.alarms,
            "detector": None if self.detector is None else self.detector.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.screens = [Usual("screen", self.config.memory) for _ in state["screens"]]
        for usual, saved in zip(self.screens, state["screens"]):
            usual.load_state_dict(saved)
        self.changed, self.alarms = state["changed"], state["alarms"]
        if self.screens:
            self.agent.share(len(self.screens))
            if self.detector is not None:
                self.detector.load_state_dict(state["detector"], self.screens[self.agent.game])
