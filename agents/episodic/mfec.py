"""agent=mfec: Model-Free Episodic Control (Blundell et al. 2016, 1606.04460).

No gradient is ever taken. A state's key is a random projection of its frame; the value of a known
state and action is the best return ever seen from it, that of an unknown one the mean over the k
nearest. Returns are raw and not discounted, and are written backwards when an episode ends.

The paper leaves open, and it is done here: an action without any entry is worth 0; equal values
(many states lead to no reward at all) are told apart by a number drawn from the state's hash, so
that play does not stop at the first action; an episode that is cut off (time limit, end of the
task) counts as if it had ended there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from agents.encoders import EncoderConfig
from agents.episodic.keys import FrameProjection, state_hashes
from agents.episodic.remember import Moment, RememberingAgent
from memory.recall import EpisodicRead

_ODD = np.uint64(0x9E3779B97F4A7C15)


class NoLearner:
    """Stands where other agents have an optimiser."""

    updates = 0
    anneal_from = 0

    def __init__(self, network: nn.Module, gamma: float) -> None:
        self.target, self._gamma = network, gamma

    def gamma(self) -> float:
        return self._gamma

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class MfecAgent(RememberingAgent):
    exact = True

    def build(self, encoder: EncoderConfig, actions: int, cuda_graph: bool) -> None:
        rng = torch.Generator().manual_seed(self.seeds["init"])
        self.network = FrameProjection(self.memory_config.key_dim, rng).to(self.device)
        self.learner = NoLearner(self.network, self.memory_config.gamma)

    def encode(self, obs: Tensor, network: nn.Module) -> tuple[Tensor, np.ndarray | None]:
        return network(obs), None

    def hashes(self, obs: np.ndarray) -> np.ndarray:
        return state_hashes(obs[:, -1])  # the paper's state is one frame

    def combine(
        self, slow: np.ndarray, read: EpisodicRead, game: int, hashes: np.ndarray
    ) -> np.ndarray:
        actions = np.arange(1, slow.shape[1] + 1, dtype=np.uint64)
        mixed = (hashes.view(np.uint64)[:, None] >> np.uint64(20)) * (actions * _ODD)  # [B,A]
        tie = (mixed >> np.uint64(40)).astype(np.float32) / 2**24  # in [0, 1)
        return read.q + 1e-5 * (1 + np.abs(read.q)) * tie

    def learn(self) -> None:
        """Nothing is learned by gradient."""

    def _state_values(self, moment: Moment) -> np.ndarray:
        return np.zeros(len(moment.keys), np.float32)  # it never bootstraps
