"""The world model that makes no error: the emulator itself, saved and brought back.

With it any planner shows how far a perfect model would get; what is left to reacting is the
planner's own error, what is missing to a learned model that model's. How evaluation/planning.py
searches with it, and why not as with a learned model, is said there. A "latent" is the number of a
saved moment, so that the same searches run on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.agent import Agent
from agents.planners import PlannerConfig, search
from agents.world_model import ModelStep
from envs import ProtocolConfig, Task
from envs.actions import ActionSet
from envs.single import SingleEmulator


class OracleModel:
    """`step(latent [M, 1], action [M])` plays the action from the saved moment.

    Rewards are clipped and lost lives end the episode as in training, so that they mean the same
    as the values of the agent.
    """

    def __init__(self, task: Task, protocol: ProtocolConfig, actions: ActionSet) -> None:
        self.scratch = SingleEmulator(task, protocol)
        self.actions, self.life_loss = actions, protocol.life_loss_terminal
        self.moments: list[Any] = []
        self.steps = 0  # emulator steps so far

    def begin(self, cores: Sequence[Any]) -> Tensor:
        """The present moments of these cores [n] as latents [n, 1]; older ones are forgotten."""
        self.moments = [core.emulators[0].clone_state() for core in cores]
        return torch.arange(len(cores), dtype=torch.float32)[:, None]

    def step(self, latent: Tensor, action: Tensor) -> ModelStep:
        first, reward, on = len(self.moments), [], []
        for index, output in zip(latent[:, 0].long().tolist(), action.tolist()):
            before = self.moments[index]
            if before.over or not self.actions.mask[output]:
                self.moments.append(before)
                reward.append(0.0)
                on.append(0.0)
                continue
            self.scratch.restore_state(before)
            reward.append(float(np.clip(self.scratch.step(self.actions.to_full[output]), -1, 1)))
            after = self.scratch.clone_state()
            self.moments.append(after)
            lost = self.life_loss and 0 < after.lives < before.lives
            on.append(0.0 if after.over or lost else 1.0)
            self.steps += 1
        names = torch.arange(first, len(self.moments), dtype=torch.float32)[:, None]
        return ModelStep(names, torch.tensor(reward), torch.tensor(on))

    def observations(self, latent: Tensor) -> np.ndarray:
        """uint8 [M, 4, 84, 84]."""
        return np.stack([self.moments[i].stack for i in latent[:, 0].long().tolist()])


class OraclePlayer:
    """Chooses as `evaluation.lockstep.play` asks, with the emulator as its model."""

    def __init__(self, agent: Agent, game: int, model: OracleModel, config: PlannerConfig) -> None:
        self.agent, self.game, self.model, self.config = agent, game, model, config
        self.decisions = self.overridden = 0

    def values(self, latent: Tensor) -> Tensor:
        q = self.agent.eval_values(self.model.observations(latent), self.game).cpu()
        return q.masked_fill(~self.agent.masks[self.game].cpu(), -torch.inf)

    def __call__(self, obs: np.ndarray, cores: Sequence[Any]) -> np.ndarray:
        root = self.model.begin(cores)
        q = self.values(root)
        mask = self.agent.masks[self.game].cpu().expand_as(q)
        gamma = self.agent.learner.gamma()
        found = search(self.config, root, q, mask, self.model, self.values, gamma)
        self.decisions += len(q)
        self.overridden += int((found.action != q.argmax(1)).sum())
        return found.action.numpy()
