"""agent=nec: Neural Episodic Control (Pritzel et al. 2017, 1703.01988).

    Q(s, a) = sum_i w_i v_i over the p entries of action a nearest to the key h(s)
    L = ((Q(s, a) - Q^N) / sigma)^2 / 2       Q^N = N-step return, bootstrapped by max_a Q

Gradients go through the kernel to the encoder (RMSProp), to the p keys and to the p values
(plain gradient steps on the memory). A replay item is a transition and its Q^N as it was when it
became known.

The paper leaves open, and it is done here: keys have unit length and D dimensions; sigma, the
running spread of the returns, makes one learning rate fit every scale of rewards; an item of a
batch moves a key by at most `memory.key_step`, and what several ask of one key adds up; an action
without any entry is worth 0.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from agents import losses
from agents.config import AgentConfig
from agents.encoders import EncoderConfig, make_encoder
from agents.episodic.config import MemoryConfig
from agents.episodic.keys import KeyNetwork, checked
from agents.episodic.remember import RememberingAgent
from agents.episodic.trails import Returns
from agents.learner import LearnerOutputs
from errors import UserError
from memory.episodic import EpisodicMemory
from memory.recall import episodic_value


class NecLearner:
    """Owns the optimiser of a `KeyNetwork`; `update` also moves keys and values in the memory."""

    anneal_from = 0

    def __init__(
        self, network: KeyNetwork, config: AgentConfig, memory: MemoryConfig, target_rate: float
    ) -> None:
        self.network, self.config, self.memory_config = network, config, memory
        self.target_rate = target_rate
        self.target = network  # NEC has no target network
        self.updates = 0
        self.params = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.RMSprop(
            self.params, lr=config.learning_rate, alpha=0.95, eps=config.adam_eps
        )

    def update(
        self,
        memory: EpisodicMemory,
        obs: Tensor,
        actions: np.ndarray,
        tasks: np.ndarray,
        returns: Tensor,
        sigma: float,
    ) -> LearnerOutputs:
        """One step on obs [B,4,84,84], actions [B] in tasks [B], and Q^N returns [B]."""
        c = self.memory_config
        query, encoding = self.network(obs)
        at = checked(query.detach().cpu().numpy())
        found = np.empty((len(at), memory.neighbours), np.int64)  # [B,p]
        for task in np.unique(tasks):
            rows = np.flatnonzero(tasks == task)
            read = memory.read(at[rows], task=int(task), recall=False)
            found[rows] = read.indices[np.arange(len(rows)), actions[rows]]
        part = memory.gather(found)
        keys, values, valid = (x.to(obs.device) for x in part[:3])
        q = episodic_value(query, keys, values, valid, c.delta)
        error = (q - returns) / sigma
        td = 0.5 * error.square().mean()
        scalars = {"td": td.detach(), "q": q.detach().mean(), "sigma": torch.tensor(sigma)}
        loss = td
        if encoding.rates.requires_grad and self.config.spike_rate_weight > 0:
            penalty = losses.spike_rate_penalty(encoding.rates, self.target_rate)
            loss = loss + self.config.spike_rate_weight * penalty
            scalars["spike_rate"] = penalty.detach()
        scalars["total"] = loss.detach()
        outputs = LearnerOutputs(error.detach().abs(), scalars)
        self.check_finite(outputs)
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.max_grad_norm > 0:
            scalars["grad_norm"] = torch.nn.utils.clip_grad_norm_(
                self.params, self.config.max_grad_norm
            )
        self.optimiser.step()
        self._move(memory, part, sigma)
        self.updates += 1
        scalars["rates"], scalars["spikes"] = encoding.rates.detach(), encoding.spikes.detach()
        return outputs

    def _move(self, memory: EpisodicMemory, part: Any, sigma: float) -> None:
        """A step of keys and values; the mean over the batch is undone: each item moves its own
        neighbours, however many others there are."""
        c, batch = self.memory_config, len(part.slots)
        if part.keys.grad is None:
            return
        length = part.keys.grad.norm(dim=-1, keepdim=True) * batch * c.key_rate
        part.keys.grad *= batch * (c.key_step / length.clamp_min(c.key_step))
        part.values.grad *= batch * sigma**2
        memory.apply_gradients(part, c.key_rate, c.value_rate)

    def check_finite(self, outputs: LearnerOutputs) -> None:
        """Raise `UserError` when the loss is no longer a number."""
        if not torch.isfinite(outputs.scalars["total"]):
            self._broken(f"loss/total became {outputs.scalars['total'].item()}")

    def check_weights(self) -> None:
        """Raise `UserError` when the weights are no longer numbers."""
        if not all(torch.isfinite(p).all() for p in self.network.parameters()):
            self._broken("weights are no longer numbers")

    def _broken(self, what: str) -> NoReturn:
        raise UserError(
            f"{what} at update {self.updates}: lower agent.learning_rate, memory.value_rate or "
            "memory.key_rate; the last checkpoint of the run was kept"
        )

    def n_step(self) -> int:
        return self.memory_config.horizon

    def gamma(self) -> float:
        return self.memory_config.gamma

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates = state["updates"]

    def begin_with(self, state: dict) -> None:
        """Take the network of another learner's state and nothing else of it."""
        self.network.load_state_dict(state["network"])


class NecAgent(RememberingAgent):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Q^N beside the replay's own rows; nan until it is known. Their names, since rows are
        # overwritten.
        self._names = np.full(self.replay.slots, -1, np.int64)
        self._returns = np.full(self.replay.slots, np.nan, np.float32)
        self._spread = np.zeros(3)  # weight, mean and mean square of the returns, forgetting

    def build(self, encoder: EncoderConfig, actions: int, cuda_graph: bool) -> None:
        rng = torch.Generator().manual_seed(self.seeds["init"])
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seeds["init"])
            network = KeyNetwork(make_encoder(encoder, rng), self.memory_config.key_dim)
        self.network = network.to(self.device)
        self.learner = NecLearner(
            self.network, self.config, self.memory_config, encoder.target_rate
        )

    def encode(self, obs: Tensor, network: nn.Module) -> tuple[Tensor, np.ndarray | None]:
        return network(obs)[0], None

    def received(self, returns: Returns, slots: np.ndarray) -> None:
        refs, values = returns.steps.ref, returns.returns
        refs, values = refs[refs >= 0], values[refs >= 0]
        self._names[refs % self.replay.slots] = refs
        self._returns[refs % self.replay.slots] = values
        for value in returns.returns.astype(np.float64):
            self._spread += 1e-3 * (np.array([1.0, value, value**2]) - self._spread)

    def sigma(self) -> float:
        """Spread of the returns lately, at least 1e-2 reward."""
        weight, mean, square = self._spread
        if weight == 0:
            return 1.0
        return max(float(square / weight - (mean / weight) ** 2), 1e-4) ** 0.5

    def _update(self) -> None:
        batch = self.replay.sample(self.config.batch_size, 1, self.sample_rng)
        places = batch.indices % self.replay.slots
        known = self._names[places] == batch.indices  # else its return is still open
        if not known.any():
            self.learner.updates += 1  # nothing to learn from yet; the ratio is kept
            return
        obs = torch.from_numpy(batch.obs_tm1[known]).to(self.device)
        returns = torch.from_numpy(self._returns[places[known]]).to(self.device)
        self.last = self.learner.update(
            self.memory,
            obs,
            batch.action_tm1[known],
            batch.task[known],
            returns,
            self.sigma(),
        )

    def state_dict(self) -> dict:
        return super().state_dict() | {
            "names": self._names,
            "returns": self._returns,
            "spread": self._spread.copy(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self._names[:], self._returns[:] = state["names"], state["returns"]
        self._spread[:] = state["spread"]
