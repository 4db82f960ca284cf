"""agent=episodic: the reactive agent, with remembered values mixed in where they have earned it.

Learning is that of `Agent`, untouched; the keys are a projection of the latent that acting
computes anyway. The encoder moves, and old keys with it: so each update's batch, whose later
states the target network has just encoded, gives the entries of those states their new keys. No
network is ever asked for the memory's sake alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.episodic.arbiter import Arbiter
from agents.episodic.keys import LatentProjection, checked
from agents.episodic.remember import RememberingAgent
from agents.episodic.trails import Returns
from memory import Batch
from memory.recall import EpisodicRead


class MixedAgent(RememberingAgent):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        c = self.memory_config
        rng = torch.Generator().manual_seed(self.seeds["keys"])
        self.projection = LatentProjection(self.network.encoder.latent_dim, c.key_dim, rng)
        self._slot_of = np.full(self.replay.slots, -1, np.int64)  # of a transition's row in replay
        # An update encodes the later states of its batch as the agent sees them, unless they were
        # shifted, or another network acts.
        values = self.config
        self._encoded = (
            values.act_with_target and values.bootstrap == "target" and values.shift == 0
        )
        self.arbiter = Arbiter(len(self.masks), c.max_weight, c.error_rate, c.warm_up)

    def encode(self, obs: Tensor, network: nn.Module) -> tuple[Tensor, np.ndarray | None]:
        out = network(obs)
        self.latent = out.encoding.latent
        self._latent = latent = self.latent.float().cpu()
        return self.projection(latent), out.q.float().cpu().numpy()

    @torch.no_grad()
    def keys_of(self, obs: np.ndarray) -> np.ndarray:
        """Without values, and not in place of `latent`, which is of what it has just acted on."""
        encoder = self.remembering_network().encoder
        return self._keys(encoder(torch.from_numpy(obs).to(self.device)).latent)

    def _keys(self, latent: Tensor) -> np.ndarray:
        return checked(self.projection(latent.float().cpu()).numpy())

    def combine(
        self, slow: np.ndarray, read: EpisodicRead, game: int, hashes: np.ndarray
    ) -> np.ndarray:
        return self.arbiter.mix(game, slow, read.q, read.action_confidence).astype(np.float32)

    @torch.no_grad()
    def values(
        self, latent: Tensor, game: int, memory: bool = True, network: nn.Module | None = None
    ) -> Tensor:
        masked = super().values(latent, game, memory, network)
        if not memory:
            return masked
        absent = torch.isneginf(masked)
        slow = masked.masked_fill(absent, 0.0)  # what is not there must not be mixed
        keys = self.projection(latent.float().cpu()).numpy()
        read = self.memory.read(keys, np.zeros(len(keys), np.int64), game, exact=False,
                                recall=False)  # fmt: skip
        mixed = self.combine(slow.cpu().numpy(), read, game, np.zeros(len(keys), np.int64))
        return torch.from_numpy(mixed).to(slow).masked_fill(absent, -torch.inf)

    @torch.no_grad()
    def reminded(self, latent: Tensor, game: int) -> list[np.ndarray | None]:
        """For latents [M, L], real or imagined, the frame uint8 [84, 84] of the nearest stored
        moment of any action; None where nothing is near or replay no longer has it."""
        keys = self.projection(latent.float().cpu()).numpy()
        read = self.memory.read(keys, np.zeros(len(keys), np.int64), game, exact=False,
                                recall=False)  # fmt: skip
        out: list[np.ndarray | None] = []
        for indices, distances in zip(read.indices, read.distances):  # [A, p]
            # Not by weight: weights add up to 1 for each action, so that an action's only entry
            # has all of it however far away it is.
            best = np.unravel_index(distances.argmin(), indices.shape)
            ref = self.memory.moments(indices[best][None]).refs
            obs, there = self.replay.observations(np.where(indices[best] >= 0, ref, -1))
            out.append(obs[0, -1] if there.any() else None)
        return out

    def act(self, obs: np.ndarray) -> np.ndarray:
        actions = super().act(obs)
        self.projection.see(self._latent)
        return actions

    def gamma(self) -> float:
        return self.learner.gamma()

    def learned(self, batch: Batch) -> None:
        """The update has encoded obs_t by the network that acts: their entries get those keys.
        Where it has not, or where the agent acts on the core, which encodes a little otherwise,
        they are encoded as it sees them."""
        every = self.memory_config.refresh
        if not every or self.learner.updates % every:
            return
        refs = self.replay.names_after(batch.indices, batch.steps)
        refs = np.where(batch.terminated, -1, refs)
        refs, first = np.unique(refs, return_index=True)
        slots = self._slot_of[refs % len(self._slot_of)]
        known = (refs >= 0) & (slots >= 0)
        known[known] = self.memory.moments(slots[known]).refs == refs[known]
        if known.any():
            if self._encoded and self.backend is None:
                keys = self._keys(self.last.latent_t[first[known]])
            else:
                obs, there = self.replay.observations(refs[known])
                known[known] = there
                keys = self.keys_of(obs)
            self.memory.reembed(slots[known], keys)

    def received(self, returns: Returns, slots: np.ndarray) -> None:
        s = returns.steps
        there = s.ref >= 0
        self._slot_of[s.ref[there] % len(self._slot_of)] = slots[there]
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
            "slot_of": self._slot_of.copy(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.arbiter.load_state_dict(state["arbiter"])
        self.projection.mean = state["key_mean"]
        self._slot_of[:] = state["slot_of"]
