"""agent=episodic: the reactive agent, with remembered values mixed in where they have earned it.

Learning is that of `Agent`, untouched; the keys are a projection of the latent that acting
computes anyway. So memory costs one read, one write and a few re-embeddings a vector step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.episodic.arbiter import Arbiter
from agents.episodic.keys import LatentProjection
from agents.episodic.remember import RememberingAgent
from agents.episodic.trails import Returns
from memory.recall import EpisodicRead


class MixedAgent(RememberingAgent):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        c = self.memory_config
        rng = torch.Generator().manual_seed(self.seeds["keys"])
        self.projection = LatentProjection(self.network.encoder.latent_dim, c.key_dim, rng)
        self.arbiter = Arbiter(len(self.masks), c.max_weight, c.error_rate, c.warm_up)

    def encode(self, obs: Tensor, network: nn.Module) -> tuple[Tensor, np.ndarray | None]:
        out = network(obs)
        latent = out.encoding.latent.float().cpu()
        self._latent = latent
        return self.projection(latent), out.q.float().cpu().numpy()

    def combine(
        self, slow: np.ndarray, read: EpisodicRead, game: int, hashes: np.ndarray
    ) -> np.ndarray:
        return self.arbiter.mix(game, slow, read.q, read.action_confidence).astype(np.float32)

    def act(self, obs: np.ndarray) -> np.ndarray:
        actions = super().act(obs)
        self.projection.see(self._latent)
        return actions

    def reward(self, reward: np.ndarray) -> np.ndarray:
        clip = self.config.reward_transform == "clip"  # on the scale of the learned values
        return np.clip(reward, -1.0, 1.0) if clip else reward

    def gamma(self) -> float:
        return self.learner.gamma()

    def received(self, returns: Returns) -> None:
        s = returns.steps
        self.arbiter.judge(self.game, returns.returns, s.fast, s.slow, s.trust)

    def diagnostics(self) -> dict[str, float]:
        a, game = self.arbiter, self.game
        return super().diagnostics() | {
            "memory/weight": a.weight(game),
            "memory/error_fast": float(a.fast_error[game]) ** 0.5,
            "memory/error_slow": float(a.slow_error[game]) ** 0.5,
            "memory/bias": float(a.bias[game]),
        }

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "arbiter": self.arbiter.state_dict(),
            "key_mean": self.projection.mean,
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.arbiter.load_state_dict(state["arbiter"])
        self.projection.mean = state["key_mean"]
