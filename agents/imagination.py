"""What an agent does with a world model: learns it from its own batches, and searches it.

Shapes: N environments, A actions, B batch, L latent, R rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agents.planners import PlannerConfig, PlanResult, search
from agents.world_model import WorldModel, WorldModelConfig, make_unroll, replay_errors
from memory import ArrayPool, Batch

if TYPE_CHECKING:
    from agents.agent import Agent
    from agents.network import QNetwork


class Imagination:
    """Draws what `agent.model` learns from, and plans with it as `planner` says.

    Args:
        config: values of the world model.
        planner: how it is searched before the agent acts; name=none: the agent reacts.
        agent: its `model`, `network`, `replay` and `latent` are read.
        seed: integer, of the steps that are compared with real frames and of the Gumbel noise.

    Both are drawn from `rng`, whose state the agent saves and restores.
    """

    def __init__(
        self, config: WorldModelConfig, planner: PlannerConfig, agent: Agent, seed: int
    ) -> None:
        self.config, self.planner, self.agent, self.seed = config, planner, agent, seed
        self.rng = np.random.default_rng(seed)
        self._pool = ArrayPool()

    def make_model(self, actions: int) -> WorldModel | None:
        """A model for the agent's network, None where none is configured; torch's own generator is
        left alone."""
        if not self.config.enabled:
            return None
        network = self.agent.network
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            width = network.head.hidden_width
            model = WorldModel(network.encoder.latent_dim, actions, width, self.config)
        return model.to(self.agent.device)

    @property
    def taught(self) -> bool:
        """Whether a model is there and still learns (`until`)."""
        if self.agent.model is None:
            return False
        return not self.config.until or self.agent.learner.annealed() < self.config.until

    def learns(self) -> bool:
        """Whether the model learns in the agent's next update."""
        return self.taught and self.agent.learner.updates % self.config.every == 0

    @property
    def plans(self) -> bool:
        """Whether the agent searches before it acts."""
        return self.planner.name != "none"

    @property
    def reanalyses(self) -> bool:
        """Whether it also chooses the bootstrap actions of a share of each batch."""
        return self.plans and self.planner.reanalyse > 0

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Batch, tuple[np.ndarray, ...]]:
        """A batch with n-step returns, and the sequences that follow its rows."""
        c = self.agent.config
        # Always of one length, and in arrays that are used again: changing sizes tear the heap to
        # pieces, by a megabyte an update.
        sequences = self.agent.replay.sample_sequences(
            c.batch_size, c.n_step_max, rng, shift=c.shift
        )
        m = self.config
        unroll = make_unroll(sequences, m.unroll, m.targets, self.rng, self._pool)
        return sequences.window(n, self._pool), unroll

    def plan(
        self, q: Tensor, game: int, explore: bool = False, network: QNetwork | None = None
    ) -> PlanResult:
        """Search from the agent's `latent`, at which it has just looked; q [N, A] are its values
        there. `explore`: it acts in order to learn, so that the Gumbel search draws its noise;
        `network`: by whose head, None for that of the acting network."""
        agent, noise = self.agent, {}
        if explore and self.planner.name == "gumbel":
            noise["gumbel"] = self.rng.gumbel(size=tuple(q.shape))
        return search(
            self.planner,
            agent.latent,
            q,
            agent.masks[game].expand_as(q),
            agent.model,
            lambda latent: agent.values(latent, game, self.planner.memory, network),
            agent.learner.gamma(),
            **noise,
        )

    @torch.no_grad()
    def reanalyse(self, latent: Tensor, q: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [R] of a batch with latents [B, L] and online values q [B, A], and the actions [R]
        that a search with the online network's values chooses there."""
        agent = self.agent
        rows = (task == agent.game).nonzero()[:, 0][: round(self.planner.reanalyse * len(task))]
        if not len(rows):
            return rows, rows
        mask, network = agent.masks[agent.game], agent.network
        found = search(
            self.planner,
            latent[rows],
            q[rows],
            mask.expand(len(rows), -1),
            agent.model,
            lambda x: network.q_values(network.head(x)).masked_fill(~mask, -torch.inf),
            agent.learner.gamma(),
        )
        return rows, found.action

    def diagnostics(self) -> dict[str, float]:
        """The model's errors on moments of replay; the log must not change learning."""
        agent = self.agent
        if not len(agent.replay):
            return {}
        rng = np.random.default_rng([self.seed, agent.learner.updates])
        batch = agent.replay.sample_sequences(96, self.config.unroll, rng)
        return replay_errors(agent, batch, self.config.unroll)
