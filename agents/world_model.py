"""Imagination: what the encoder will say after an action, and what the action pays.

    z_k+1 = z_k + D relu(S z_k + E[a_k])         z_0 the latent of the present moment
    reward class and continuation from the same hidden layer

Learned on K steps of replay by losses that add up (agents/losses.py): self-prediction as in SPR
(Schwarzer 2021, 2007.05929, eq. 4), reward, termination, and agreement of the values of an
imagined latent with those of the real one; and by a loss about the actions that were not taken:
the values one step ahead shall differ between actions as q does (a consistency of model
and values, after Farquhar 2021, "Self-consistent models and values", 2110.12840). Latents are
sparse and not negative; imagined ones may go below zero, since clipping them would stop the
gradient of every neuron that is silent.

Shapes: B batch, K unrolled steps, J of them compared with real frames, M nodes, L latent, H hidden,
A actions, P width of the head's first layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from agents import losses
from errors import require
from memory import ArrayPool, SequenceBatch

if TYPE_CHECKING:
    from agents.agent import Agent

CLASSES = 3  # of the clipped reward: -1, 0, 1
CONTINUES = 2.0  # initial logit of going on: an end is rare


@dataclass(frozen=True)
class WorldModelConfig:
    """Group `world_model`."""

    enabled: bool = False  # whether one is learned
    every: int = 4  # updates from one that the model learns in to the next
    # optimiser updates, counted as agent.anneal_updates are, after which the model learns no more
    # and teaches the encoder nothing more; 0: it learns to the end
    until: int = 0
    unroll: int = 5  # agent steps imagined in training (SPR: 5)
    # How many of them, drawn anew for each row, are compared with the real frames: SPR takes all
    # five, and their encoding would cost more than everything else of the model together.
    targets: int = 1
    hidden: int = 256  # units of the transition's hidden layer
    self_prediction: float = 5.0  # weight (SPR: 5); 0 leaves a model that teaches the encoder less
    reward: float = 1.0  # weight of the cross entropy of the clipped reward
    termination: float = 1.0  # weight of the binary cross entropy of the episode's end
    value: float = 0.25  # weight of the values' agreement on imagined latents
    # Weight of the agreement of one-step values with q about the differences between actions; it
    # teaches the model alone. The other losses ask only about actions that were taken: without it
    # every search loses on RoadRunner at 100k agent steps, with it one step and Gumbel gain there.
    # [measured: planning_100k, planning_advantage]
    advantage: float = 1.0
    # Moments an update for it, half of them real and half imagined: each costs a step of the model
    # for every action. A finished model learns nearly as much from 2 as from 8 (correlation with q
    # .71 and .75 after 3,000 updates, RoadRunner). [measured]
    advantage_rows: int = 2
    gradient_scale: float = 0.5  # of what flows back through each step (MuZero: 0.5)

    def __post_init__(self) -> None:
        for key in ("every", "unroll", "targets", "hidden", "advantage_rows"):
            require(getattr(self, key) >= 1, f"world_model.{key} must be at least 1")
        require(self.until >= 0, f"world_model.until={self.until} must not be negative")
        for key in ("self_prediction", "reward", "termination", "value", "advantage"):
            require(getattr(self, key) >= 0, f"world_model.{key} must not be negative")
        require(0 < self.gradient_scale <= 1, "world_model.gradient_scale must lie in (0, 1]")
        require(
            self.targets <= self.unroll,
            f"world_model.targets={self.targets} must be at most world_model.unroll={self.unroll}",
        )


class ModelStep(NamedTuple):
    """One imagined step of M nodes."""

    latent: Tensor  # [M, L]
    reward: Tensor  # [M] expected clipped reward
    discount: Tensor  # [M] probability that the episode goes on; times gamma it is the discount


class Unroll(NamedTuple):
    """K real steps beside a batch, as tensors; what lies beyond `steps` does not count."""

    action: Tensor  # [B, K] int64
    reward: Tensor  # [B, K] float32, raw
    terminated: Tensor  # [B, K] bool
    steps: Tensor  # [B] int64
    depth: Tensor  # [B, J] int64, 1..K: the steps that are compared
    obs: Tensor  # [B, J, 4, 84, 84] uint8 after `depth` steps


class WorldModel(nn.Module):
    """Action-conditioned transition, reward and continuation on an encoder's latent.

    Args:
        latent_dim: L.
        num_actions: A.
        projection_dim: P, width in which predictions are compared.
        config: values of the model.
    """

    def __init__(
        self, latent_dim: int, num_actions: int, projection_dim: int, config: WorldModelConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.state = nn.Linear(latent_dim, config.hidden)
        self.action = nn.Embedding(num_actions, config.hidden)
        self.change = nn.Linear(config.hidden, latent_dim)
        self.outcome = nn.Linear(config.hidden, CLASSES + 1)
        self.predictor = nn.Linear(projection_dim, projection_dim)
        self.register_buffer("reward_values", torch.tensor([-1.0, 0.0, 1.0]), persistent=False)
        with torch.no_grad():
            self.change.weight.mul_(0.1)  # at first nearly nothing changes
            self.outcome.bias[-1] = CONTINUES

    def transition(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """latent [M, L], action int64 [M] -> next latent [M, L], outcome logits [M, 4]."""
        hidden = torch.relu(self.state(latent) + self.action(action))
        return latent + self.change(hidden), self.outcome(hidden)

    @torch.no_grad()
    def step(self, latent: Tensor, action: Tensor) -> ModelStep:
        """Imagine action int64 [M] in latent [M, L]."""
        latent, logits = self.transition(latent, action)
        reward = torch.softmax(logits[:, :CLASSES], 1) @ self.reward_values
        return ModelStep(latent, reward, torch.sigmoid(logits[:, CLASSES]))

    def backed_up(self, target: nn.Module, latent: Tensor, mask: Tensor, gamma: Tensor) -> Tensor:
        """r + gamma c max_a' q(s', a') [M, A] of every action in latent [M, L], with gradient.

        target: the `QNetwork` that values the imagined latents; mask [M, A]: actions that exist.
        """
        rows, actions = mask.shape
        # What the latent says to the hidden layer is the same for all actions: computed once.
        hidden = torch.relu(self.state(latent)[:, None] + self.action.weight).flatten(0, 1)
        at = latent.repeat_interleave(actions, 0) + self.change(hidden)  # [M*A, L]
        logits = self.outcome(hidden)
        reward = torch.softmax(logits[:, :CLASSES], 1) @ self.reward_values
        q = target.q_values(target.head(at)).masked_fill(
            ~mask.repeat_interleave(actions, 0), -torch.inf
        )
        value = gamma * torch.sigmoid(logits[:, CLASSES]) * q.amax(1)
        return (reward + value).view(rows, actions)

    def unroll(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """latent [B, L], action [B, K] -> latents after each step [K, B, L], logits [K, B, 4]."""
        latents, hidden = _Unroll.apply(
            latent,
            self.action(action.T),
            self.state.weight,
            self.state.bias,
            self.change.weight,
            self.change.bias,
            self.config.gradient_scale,
        )
        return latents, self.outcome(hidden)

    def loss(
        self,
        network: nn.Module,
        target: nn.Module,
        latent: Tensor,
        real: Unroll,
        mask: Tensor,
        gamma: Tensor,
    ) -> dict[str, Tensor]:
        """Named, weighted losses of unrolling from latent [B, L] (with gradient).

        network, target: the `QNetwork`s; mask [B, A]: actions that exist in that game; gamma []:
        1 / agent step.
        """
        c = self.config
        imagined, logits = self.unroll(latent, real.action)
        index = torch.arange(real.action.shape[1], device=latent.device)
        counts = index[:, None] < real.steps  # [K, B]
        reward, terminated = real.reward.T, real.terminated.T
        out = {
            "reward": c.reward * losses.reward_classes(logits[..., :CLASSES], reward, counts),
            "termination": c.termination
            * losses.termination(logits[..., CLASSES], terminated, counts),
        }
        rows = torch.arange(len(latent), device=latent.device)[:, None]
        at = imagined[real.depth - 1, rows].flatten(0, 1)  # [B*J, L]
        # What follows an end was never seen.
        there = (counts & ~terminated)[real.depth - 1, rows].flatten()  # [B*J]
        with torch.no_grad():
            seen = target.encoder(real.obs.flatten(0, 1)).latent  # [B*J, L]
            wanted = target.head.features(seen)  # [B*J, P]
        made = network.head.features(at)
        if c.self_prediction > 0:
            out["self_prediction"] = c.self_prediction * losses.self_prediction(
                self.predictor(made), wanted, there
            )
        if c.value == c.advantage == 0:
            return out
        masks = mask.repeat_interleave(real.depth.shape[1], 0)  # [B*J, A]
        with torch.no_grad():
            wanted = target.head.logits(wanted)
        if c.value > 0:
            out["imagined_value"] = c.value * losses.imagined_value(
                network.head.logits(made), wanted, masks, there
            )
        if c.advantage > 0:
            # In N moments, real ones and some that are themselves imagined, from all parts of the
            # batch: where two replays share it, each has its own.
            def some(x: Tensor) -> Tensor:
                rows = min((c.advantage_rows + 1) // 2, len(x))
                return x[torch.arange(rows, device=x.device) * len(x) // rows]

            begin, on = some(latent), some(wanted)
            with torch.no_grad():
                q = target.q_values(torch.cat([target.head(begin), on]))  # [N, A]
            starts = torch.cat([begin, some(at)]).detach()
            masks = torch.cat([some(mask), some(masks)])
            there = torch.cat([there.new_ones(len(begin)), some(there)])
            backed_up = self.backed_up(target, starts, masks, gamma)
            out["advantage"] = c.advantage * losses.advantages(backed_up, q, masks, there)
        return out


class _Unroll(torch.autograd.Function):
    """K transitions z_k+1 = z_k + D relu(S z_k + e_k) with one product for each weight's gradient
    and a gradient that is scaled on its way from each step to the one before."""

    @staticmethod
    def forward(ctx, z, e, s, s_bias, d, d_bias, scale):
        """z [B, L], e [K, B, H], S [H, L], D [L, H] -> latents [K, B, L], hidden [K, B, H]."""
        steps = len(e)
        latents = z.new_empty(steps + 1, *z.shape)
        hidden = torch.empty_like(e)
        latents[0] = z
        e = e + s_bias
        for k in range(steps):
            torch.addmm(e[k], latents[k], s.T, out=hidden[k]).relu_()
            torch.addmm(d_bias, hidden[k], d.T, out=latents[k + 1]).add_(latents[k])
        ctx.save_for_backward(latents, hidden, s, d)
        ctx.scale = scale
        return latents[1:], hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_latents, of_hidden):
        latents, hidden, s, d = ctx.saved_tensors
        after = of_latents.clone(memory_format=torch.contiguous_format)  # of z_k+1
        before = torch.empty_like(hidden)  # of S z_k + e_k
        for k in range(len(hidden) - 1, -1, -1):
            torch.addmm(of_hidden[k], after[k], d, out=before[k]).mul_(hidden[k] > 0)
            into = torch.addmm(after[k], before[k], s)  # of z_k
            if k:
                after[k - 1].add_(into, alpha=ctx.scale)
        after_rows, before_rows = after.flatten(0, 1), before.flatten(0, 1)
        return (
            into,
            before,
            before_rows.T @ latents[:-1].flatten(0, 1),
            before_rows.sum(0),
            after_rows.T @ hidden.flatten(0, 1),
            after_rows.sum(0),
            None,
        )


@torch.no_grad()
def replay_errors(agent: Agent, batch: SequenceBatch, length: int) -> dict[str, float]:
    """Mean absolute errors of reward and value 1 and `length` steps ahead, per game of the batch.

    Over sequences that are that long; value: max_a q of the imagined latent against that of the
    real one. Followed over a run they say whether the model of an old game survives the next.
    """
    device, out = agent.device, {}
    whole = (batch.steps >= length) & ~batch.terminated[:, :length].any(1)
    for game in np.unique(batch.task[whole]).tolist():
        rows = np.flatnonzero(whole & (batch.task == game))
        frames = torch.from_numpy(batch.frames[rows]).to(device)
        latent = agent.acting_network.encoder(frames[:, :4].contiguous()).latent
        for k in range(1, length + 1):
            action = torch.from_numpy(batch.action[rows, k - 1]).to(device)
            step = agent.model.step(latent, action)
            latent = step.latent
            if k in (1, length):
                wanted = torch.from_numpy(batch.rewards[rows, k - 1]).clamp(-1, 1).to(device)
                error = (step.reward - wanted).abs().mean()
                out[f"model/reward_error_{k}/game{game}"] = error.item()
                seen = agent.acting_network.encoder(frames[:, k : k + 4].contiguous()).latent
                error = agent.values(latent, game, False).amax(1) - agent.values(
                    seen, game, False
                ).amax(1)
                out[f"model/value_error_{k}/game{game}"] = error.abs().mean().item()
    return out


def make_unroll(
    batch: SequenceBatch, length: int, targets: int, rng: np.random.Generator, pool: ArrayPool
) -> tuple[np.ndarray, ...]:
    """The arrays of an `Unroll` of `length` steps from sequences at least as long; `targets`
    depths are drawn for each row, without replacement."""
    rows = len(batch.steps)
    depth = rng.permuted(np.tile(np.arange(1, length + 1), (rows, 1)), axis=1)[:, :targets]
    obs = pool.take((rows, targets, 4, *batch.frames.shape[2:]))
    for row, of_row in enumerate(depth):
        for j, d in enumerate(of_row):
            obs[row, j] = batch.frames[row, d : d + 4]
    return (
        batch.action[:, :length],
        batch.rewards[:, :length],
        batch.terminated[:, :length],
        np.minimum(batch.steps, length),
        depth,
        obs,
    )
