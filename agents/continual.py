"""What keeps old games: consolidation, cloning of old behaviour, and the choice of replay.

agent.replay = make_replay(...)
agent.continual = Continual(config, agent)
agent.continual.end_task()           # a game ends: importances are measured, a copy is kept
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from agents.config import AgentConfig
from agents.footprint import footprint
from agents.losses import cloning
from agents.network import QNetwork, QOutput
from errors import require
from memory import ReplayBuffer
from memory.consolidation import METHODS, Consolidation, ConsolidationConfig, mean_gradients
from memory.consolidation.methods import Evidence
from memory.mixed_replay import MixedReplay
from memory.reservoir import ReservoirReplay

if TYPE_CHECKING:
    from agents.agent import Agent
    from agents.learner import LearnerInputs

TRIES = 64  # batches that are looked through for transitions of the finished game


@dataclass(frozen=True)
class ReplayConfig:
    """Group `replay`. All kinds have the bytes of agent.replay_capacity transitions."""

    # fifo: the newest; reservoir: a uniform sample of all; fifo_and_reservoir: half and half
    kind: str = "fifo"
    # Weights of cloning on transitions of other games than the present one, against the network
    # as it was when the last game ended (CLEAR's idea; its own weights are .01 and .005).
    clone_policy: float = 0.0  # of KL(old policy || policy)
    clone_value: float = 0.0  # of the squared difference of Q-values
    clone_temperature: float = 0.1  # return units; policy = softmax(Q / temperature)

    def __post_init__(self) -> None:
        kinds = ("fifo", "reservoir", "fifo_and_reservoir")
        require(self.kind in kinds, f"replay.kind={self.kind} is not one of {', '.join(kinds)}")
        for key in ("clone_policy", "clone_value"):
            require(getattr(self, key) >= 0, f"replay.{key} must not be negative")
        require(self.clone_temperature > 0, "replay.clone_temperature must be above 0")

    @property
    def clones(self) -> bool:
        return self.clone_policy > 0 or self.clone_value > 0


@dataclass(frozen=True)
class ContinualConfig:
    """What an agent does against forgetting."""

    consolidation: tuple[str, ...] = ()
    stiffness: ConsolidationConfig = field(default_factory=ConsolidationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)

    def __post_init__(self) -> None:
        for name in self.consolidation:
            require(
                name in METHODS,
                f"consolidation=[{name}]: choose from {', '.join(METHODS)}; several add up",
            )
        require(
            len(set(self.consolidation)) == len(self.consolidation),
            "consolidation names a method twice",
        )


def make_replay(config: AgentConfig, replay: ReplayConfig, seed: int):
    """The replay of this kind; all kinds hold the same bytes of frames."""
    n, window = config.num_envs, config.n_step_max
    if replay.kind == "reservoir":
        return ReservoirReplay(config.replay_capacity, n, window, seed)
    capacity = config.replay_capacity
    if replay.kind == "fifo_and_reservoir":
        half = capacity // 2
        return MixedReplay(ReplayBuffer(half, n, window), ReservoirReplay(half, n, window, seed))
    return ReplayBuffer(
        capacity, n, window, prioritised=config.prioritised, alpha=config.priority_alpha
    )


class _PlainForm(nn.Module):
    """A network, its parameters included, whose encoder runs in plain torch."""

    def __init__(self, network: QNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, obs: Tensor) -> QOutput:
        logits = self.network.head(self.network.encoder.plain_latent(obs))
        return QOutput(logits, self.network.q_values(logits), None)


class Continual:
    """The parts against forgetting of one agent; all of them off by default."""

    def __init__(self, config: ContinualConfig, agent: Agent, seed: int) -> None:
        self.config, self.agent = config, agent
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.consolidation: Consolidation | None = None
        # The network as the last game left it, where old games are cloned. A CUDA graph knows it by
        # its place, so that it is overwritten and never replaced.
        self.old: QNetwork | None = None
        self.left = False  # a game has been left behind: there is something to clone
        if config.consolidation:
            self.consolidation = Consolidation(
                config.consolidation, config.stiffness, agent.network
            )
            agent.learner.consolidation = self.consolidation
        if config.replay.clones:
            self.old = copy.deepcopy(agent.learner.target).requires_grad_(False)
            agent.learner.clone = self.clone_loss

    # -- at the end of a game -------------------------------------------------------------------
    def end_task(self) -> None:
        """The agent's present game ends."""
        agent = self.agent
        if not agent.learner.updates:
            return
        if self.consolidation is not None:
            obs = self._observations()
            if len(obs):
                self.consolidation.consolidate(
                    Evidence(lambda: self._fisher(obs), lambda: self._sensitivity(obs))
                )
        if self.config.replay.clones:
            self._keep(agent.acting_network.state_dict())

    def _keep(self, state: dict) -> None:
        """From now on this network is what is cloned, as evaluations judge it: without noise."""
        self.old.load_state_dict(state)
        self.old.quiet()
        self.left = True

    def _observations(self) -> Tensor:
        """uint8 [M, 4, 84, 84] of the present game, drawn from replay."""
        agent, wanted = self.agent, self.config.stiffness.samples
        found: list[np.ndarray] = []
        for _ in range(TRIES):
            if sum(map(len, found)) >= wanted or not len(agent.replay):
                break
            batch = agent.replay.sample_sequences(64, 1, self.rng)  # uniform, also with priorities
            found.append(batch.frames[batch.task == agent.game][:, :4])
        if not found:
            return torch.zeros((0, 4, 84, 84), dtype=torch.uint8)
        return torch.from_numpy(np.concatenate(found)[:wanted]).to(agent.device)

    def _mean_gradients(self, score: Callable[..., Tensor], obs: Tensor, *args, **kwargs):
        """`mean_gradients` of the network, vectorised where its encoder has a plain form: into
        compiled kernels torch.func cannot look."""
        network, names = self.agent.network, self.consolidation.names
        if not network.encoder.has_plain_form:
            return mean_gradients(network, names, score, obs, *args, vectorised=False, **kwargs)
        names = [f"network.{name}" for name in names]
        return mean_gradients(_PlainForm(network), names, score, obs, *args, **kwargs)

    def _fisher(self, obs: Tensor) -> list[Tensor]:
        """Mean squared gradients of log pi(a | obs), a drawn from pi = softmax(Q / temperature)
        over the actions that the game has (Kirkpatrick 2017, with the policy of a Q-learner)."""
        agent, temperature = self.agent, self.config.stiffness.temperature
        mask = agent.masks[agent.game]  # [A]
        with torch.no_grad():
            q = torch.cat([agent.network(part).q for part in obs.split(64)])
        policy = torch.softmax(q.masked_fill(~mask, -torch.inf) / temperature, 1).cpu()
        action = torch.multinomial(policy, 1, generator=self.torch_rng)[:, 0].to(agent.device)
        chosen = torch.nn.functional.one_hot(action, q.shape[1]).to(q.dtype)

        def score(out: QOutput, one_hot: Tensor) -> Tensor:
            logits = (out.q[0] / temperature).masked_fill(~mask, -1e9)
            return (torch.log_softmax(logits, 0) * one_hot).sum()

        return self._mean_gradients(score, obs, [chosen])

    def _sensitivity(self, obs: Tensor) -> list[Tensor]:
        """Mean absolute gradients of ||Q||^2 over the game's actions (Aljundi 2018, eq. 2)."""
        mask = self.agent.masks[self.agent.game]
        return self._mean_gradients(lambda out: (out.q[0] ** 2 * mask).sum(), obs, power=1)

    # -- in every update ------------------------------------------------------------------------
    def foreign(self, task: np.ndarray) -> np.ndarray | None:
        """Rows [B] of other games than the present one, to be cloned; None if none ever are."""
        if self.old is None:
            return None
        return (task != self.agent.game) & self.left

    def clone_loss(
        self, out: QOutput, inputs: LearnerInputs, fixed_shapes: bool = False
    ) -> Tensor | None:
        """Cloning on the rows of other games than the present one; None if there are none. With
        fixed shapes, as in a CUDA graph, all rows are asked and the others count nothing."""
        c, count = self.config.replay, len(inputs.foreign)
        rows = slice(None) if fixed_shapes else inputs.foreign.nonzero()[:, 0]
        if not fixed_shapes and not len(rows):
            return None
        with torch.no_grad():
            old = self.old(inputs.obs_tm1[rows]).q
        masks = self.agent.masks[inputs.task[rows]]
        policy, value = cloning(out.q[rows], old, masks, c.clone_temperature)
        # A mean over the whole batch, as the TD loss is.
        if fixed_shapes:
            each = c.clone_policy * policy + c.clone_value * value
            return (inputs.foreign * each).sum() / count
        return len(rows) / count * (c.clone_policy * policy.mean() + c.clone_value * value.mean())

    def diagnostics(self) -> dict[str, float]:
        out = {f"bytes/{part}": float(n) for part, n in footprint(self.agent).items()}
        if self.consolidation is not None:
            out["loss/consolidation"] = self.consolidation.penalty().item()
        return out

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict:
        keeps = self.consolidation
        return {
            "rng": self.rng.bit_generator.state,
            "torch_rng": self.torch_rng.get_state(),
            "consolidation": keeps.state_dict() if keeps is not None else None,
            "old": self.old.state_dict() if self.left else None,
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.torch_rng.set_state(state["torch_rng"])
        if self.consolidation is not None:
            self.consolidation.load_state_dict(state["consolidation"])
        if state["old"] is not None:
            self._keep(state["old"])
