"""An agent with an episodic memory: what MFEC, NEC and the mixed agent have in common.

Each vector step: look at the moment (key, hash, what the memory says), act, and write the moments
whose returns have become known. With `memory.reembed` keys of an older encoder are encoded
anew, a few each step, from the frames that replay still holds.

Shapes: N environments, B batch, A actions, D key dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from agents.agent import Agent, Transition
from agents.episodic.config import MemoryConfig
from agents.episodic.figure import Recall, draw_recall
from agents.episodic.keys import checked, state_hashes
from agents.episodic.monitor import Monitor
from agents.episodic.probes import Probes
from agents.episodic.trails import Returns, Step, Trails
from errors import require
from memory.episodic import EpisodicMemory
from memory.recall import EpisodicRead


class Moment(NamedTuple):
    """What the agent knows of observations [B]."""

    keys: np.ndarray  # [B,D]
    hashes: np.ndarray  # [B]
    read: EpisodicRead
    slow: np.ndarray  # [B,A] learned values; those of the memory where nothing else is learned
    q: np.ndarray  # [B,A] what the agent goes by


class RememberingAgent(Agent):
    """Args as of `Agent`, and the values of the memory."""

    exact = False  # a known state and action answers with its own value (MFEC)

    def __init__(self, *args: Any, memory: MemoryConfig, **kwargs: Any) -> None:
        self.memory_config = c = memory
        super().__init__(*args, **kwargs)
        games, actions = self.masks.shape
        shares = games * (actions if c.partition == "task_action" else 1)
        require(
            c.capacity >= shares,
            f"memory.capacity={c.capacity} must be at least {shares}, an entry for each share",
        )
        self.memory = EpisodicMemory(
            c.capacity,
            c.key_dim,
            actions,
            c.neighbours,
            tasks=games,
            index=c.index,
            scope=c.scope,
            update=c.update,
            alpha=c.alpha,
            kernel=c.kernel,
            delta=c.delta,
            reach=c.reach,
            partition=c.partition,
            unit_keys=True,
        )
        self.trails = Trails(self.config.num_envs, c.horizon)
        self.monitor = Monitor()
        self.probes = Probes(games)
        self._moment: Moment | None = None  # of the observations that `act` was given last
        self._obs: np.ndarray | None = None
        self._judging = False  # an evaluation leaves no trace in the memory
        self._vector_steps = 0

    # -- what the variants say ------------------------------------------------------------------
    def encode(self, obs: Tensor, network: nn.Module) -> tuple[Tensor, np.ndarray | None]:
        """Keys [B,D] and learned values [B,A], or None, of obs [B,4,84,84]."""
        raise NotImplementedError

    def hashes(self, obs: np.ndarray) -> np.ndarray:
        """Hashes [B] of the states obs [B,4,84,84]."""
        return state_hashes(obs)

    def combine(
        self, slow: np.ndarray, read: EpisodicRead, game: int, hashes: np.ndarray
    ) -> np.ndarray:
        """Values [B,A] to go by."""
        return read.q

    def reward(self, reward: np.ndarray) -> np.ndarray:
        """Rewards [N] as the returns count them: raw in the papers, and where values are learned
        on the scale of those."""
        return np.clip(reward, -1.0, 1.0) if self.config.reward_transform == "clip" else reward

    def gamma(self) -> float:
        return self.memory_config.gamma

    def received(self, returns: Returns, slots: np.ndarray) -> None:
        """Moments whose returns have become known and were written to slots [M]."""

    # -- looking and acting ---------------------------------------------------------------------
    @torch.no_grad()
    def look(
        self, obs: np.ndarray, game: int, network: nn.Module, *, recall: bool = True
    ) -> Moment:
        """Encode obs [B,4,84,84], read the memory; `recall`: what is read is kept longer."""
        keys, slow = self.encode(torch.from_numpy(obs).to(self.device), network)
        keys, hashes = checked(keys.cpu().numpy()), self.hashes(obs)
        read = self.memory.read(keys, hashes, game, exact=self.exact, recall=recall)
        slow = read.q if slow is None else slow
        return Moment(keys, hashes, read, slow, self.combine(slow, read, game, hashes))

    def act(self, obs: np.ndarray) -> np.ndarray:
        self._moment = None
        actions = super().act(obs)
        if self._moment is None:  # it acted at random; the moment is remembered all the same
            self._moment = self.look(obs, self.game, self.deciding_network())
        self._obs = obs
        return actions

    def q_values(self, obs: np.ndarray, game: int, network: nn.Module) -> Tensor:
        moment = self.look(obs, game, network, recall=not self._judging)
        if not self._judging:
            self._moment = moment
        return torch.from_numpy(moment.q).to(self.device)

    def label_values(self, obs: np.ndarray, label: int) -> Tensor:
        self._judging = True
        try:
            return super().label_values(obs, label)
        finally:
            self._judging = False

    def eval_policy(self, obs: np.ndarray, game: int) -> np.ndarray:
        self._judging = True
        try:
            return super().eval_policy(obs, game)
        finally:
            self._judging = False

    # -- writing --------------------------------------------------------------------------------
    def observe(self, transition: Transition) -> None:
        super().observe(transition)
        moment, action = self._moment, transition.action
        assert moment is not None, "observe() follows act()"
        rows = np.arange(len(action))
        self._vector_steps += 1
        self.monitor.saw(moment.read, action, self.memory)
        steps = Step(
            moment.keys,
            moment.hashes,
            action,
            self.reward(transition.reward).astype(np.float32),
            self.replay.newest(),
            moment.read.q[rows, action],
            moment.slow[rows, action],
            moment.read.action_confidence[rows, action],
        )
        values, gamma = self._state_values(moment), self.gamma()
        for returns in self.trails.add(steps, values, transition.terminated, gamma):
            self._remember(returns)
        if transition.truncated.any():
            self._end(transition.final_obs, np.flatnonzero(transition.truncated))
        self._keep_up(moment)

    def cut(self, obs: np.ndarray) -> None:
        super().cut(obs)
        self._end(obs, np.arange(len(obs)))

    def share(self, contexts: int) -> None:
        self.memory.share_among(contexts)

    def leave(self) -> None:
        super().leave()
        self.probes.freeze(self.game, self.replay)

    def _state_values(self, moment: Moment) -> np.ndarray:
        """Value [B] of the best action that the game has, to bootstrap from."""
        allowed = self.allowed[self.game]
        return moment.slow[:, allowed].max(1)

    def _end(self, obs: np.ndarray, rows: np.ndarray) -> None:
        """Episodes `rows` stop at obs [N,...] without a termination."""
        moment = self.look(obs[rows], self.game, self.deciding_network(), recall=False)
        for e, value in zip(rows, self._state_values(moment)):
            self._remember(self.trails.end(int(e), float(value), self.gamma()))

    def _remember(self, returns: Returns) -> None:
        if not len(returns.returns):
            return
        s = returns.steps
        checked(returns.returns, "values")
        slots = self.memory.write(s.key, s.action, returns.returns, s.hash, self.game, s.ref)
        self.probes.add(self.game, returns)
        self.received(returns, slots)

    def _keep_up(self, moment: Moment) -> None:
        """Bounded upkeep: encode a few old moments anew, now and then check the index."""
        c, memory = self.memory_config, self.memory
        if self.learner.updates >= (memory.version + 1) * c.version_every:
            memory.advance_version()
        if c.reembed and len(memory):
            slots = memory.stale(c.reembed)
            obs, there = self.replay.observations(memory.moments(slots).refs)
            if there.any():
                keys = self.keys_of(obs)
                memory.reembed(slots[there], keys)
        if self._vector_steps % c.audit_every == 0:
            self.monitor.audited(memory.tune(moment.keys[:1], self.game))

    @torch.no_grad()
    def keys_of(self, obs: np.ndarray) -> np.ndarray:
        """Keys [B,D] of obs [B,4,84,84] by the network that acts."""
        keys, _ = self.encode(torch.from_numpy(obs).to(self.device), self.remembering_network())
        return checked(keys.cpu().numpy())

    # -- numbers and pictures -------------------------------------------------------------------
    def diagnostics(self) -> dict[str, float]:
        return (
            super().diagnostics()
            | {f"memory/{k}": v for k, v in self.memory.stats().items()}
            | self.monitor.scalars()
            | self.probes.scalars(self)
        )

    def recalls(
        self, obs: np.ndarray, game: int, count: int = 5, actions: np.ndarray | None = None
    ) -> list[Recall]:
        """For each of obs [B,...] what its action was compared with; changes nothing.

        actions: [B] that were taken; by default the best ones by the agent's values.
        """
        moment = self.look(obs, game, self.judging_network(), recall=False)
        if actions is None:
            allowed = self.allowed[game]
            actions = allowed[moment.q[:, allowed].argmax(1)]
        out = []
        for b, action in enumerate(actions):
            slots = moment.read.indices[b, action][:count]
            slots = slots[slots >= 0]
            known = self.memory.moments(slots)
            frames, there = self.replay.observations(known.refs)
            shown: list[np.ndarray | None] = [None] * len(slots)
            for i, frame in zip(np.flatnonzero(there), frames):
                shown[i] = frame[-1]
            out.append(
                Recall(
                    obs[b, -1],
                    int(action),
                    float(moment.q[b, action]),
                    float(moment.slow[b, action]),
                    float(moment.read.q[b, action]),
                    float(moment.read.action_confidence[b, action]),
                    shown,
                    known,
                    moment.read.weights[b, action][: len(slots)],
                    moment.read.distances[b, action][: len(slots)],
                )
            )
        return out

    def figures(self, games: Sequence[str]) -> dict[str, Any]:
        figures = super().figures(games)
        if self._obs is not None and len(self.memory):
            recalls, names = self.recalls(self._obs[:2], self.game), self.task_names(games)
            figures["memory/recall"] = draw_recall(recalls, names)
        return figures

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict:
        return super().state_dict() | {
            "trails": self.trails.state_dict(),
            "monitor": self.monitor.state_dict(),
            "probes": self.probes.state_dict(),
            "vector_steps": self._vector_steps,
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.trails.load_state_dict(state["trails"])
        self.monitor.load_state_dict(state["monitor"])
        self.probes.load_state_dict(state["probes"])
        self._vector_steps = state["vector_steps"]

    def memory_state(self) -> dict | None:
        return self.memory.state_dict()

    def load_memory_state(self, state: dict | None) -> None:
        if state is None:
            raise KeyError("memory")
        self.memory.load_state_dict(state)
