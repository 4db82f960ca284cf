"""Losses as pure functions of tensors.

Shapes: B batch, n reward window, A actions, Z atoms, K spiking layers. Time suffixes as in rlax:
`_tm1` is the state an action was taken in, `_t` the state the target bootstraps from. Every loss
takes `discount_t`, never `done`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def n_step_return(
    rewards: Tensor,  # [B, n] already transformed
    steps: Tensor,  # [B] number of rewards that count, 1..n
    terminated: Tensor,  # [B] bool: the episode ended within those steps
    gamma: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """n-step return and the discount of its bootstrap (Sutton & Barto 2018, eq. 7.1).

    r_t = sum_{i < steps} gamma^i rewards_i and discount_t = gamma^steps, 0 where terminated. A
    window cut short by a truncation bootstraps from its last observation with gamma^steps.

    Returns:
        r_t [B], discount_t [B].
    """
    _same_batch(rewards[:, 0], steps, terminated)
    index = torch.arange(rewards.shape[1], device=rewards.device)  # [n]
    gamma = torch.as_tensor(gamma, dtype=rewards.dtype, device=rewards.device)
    powers = torch.where(index < steps[:, None], gamma**index, 0.0)  # [B, n]
    discount_t = torch.where(terminated, 0.0, gamma**steps)
    return (rewards * powers).sum(1), discount_t


def double_q_targets(
    q_t_value: Tensor,  # [B, A] network that evaluates
    q_t_select: Tensor,  # [B, A] network that selects
    mask_t: Tensor,  # [B, A] bool, actions that exist in that game
    r_t: Tensor,  # [B]
    discount_t: Tensor,  # [B]
) -> Tensor:
    """Scalar double-Q target r + discount * Q_value(s, argmax Q_select) (van Hasselt 2016, eq. 4).

    Returns [B]; no gradient flows through it.
    """
    a_t = masked_argmax(q_t_select, mask_t)  # [B]
    value = q_t_value.gather(1, a_t[:, None])[:, 0]
    return (r_t + discount_t * value).detach()


def categorical_projection(
    probs: Tensor,  # [B, Z] distribution at s_t
    r_t: Tensor,  # [B]
    discount_t: Tensor,  # [B]
    support: Tensor,  # [Z] equally spaced
) -> Tensor:
    """Project r + discount * z onto the support (Bellemare 2017, algorithm 1). Returns [B, Z].

    Written with the triangular kernel: mass at target position x goes to atom z_i with weight
    max(0, 1 - |x - z_i| / delta), which needs no index arithmetic.
    """
    v_min, v_max = support[0], support[-1]
    delta = support[1] - support[0]
    moved = (r_t[:, None] + discount_t[:, None] * support).clamp(v_min, v_max)  # [B, Z]
    kernel = (1 - (moved[:, None, :] - support[None, :, None]).abs() / delta).clamp_min(0)
    return torch.einsum("bij,bj->bi", kernel, probs).detach()  # [B, Z]


def categorical_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of `softmax(logits)` [B, Z] against `target` [B, Z]. Returns [B]."""
    return -(target * torch.log_softmax(logits, 1)).sum(1)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """Huber loss of an error [B]: quadratic within `delta`, linear outside. Returns [B]."""
    absolute = error.abs()
    quadratic = absolute.clamp_max(delta)
    return 0.5 * quadratic**2 + delta * (absolute - quadratic)


def spike_rate_penalty(rates: Tensor, target_rate: float) -> Tensor:
    """Sum over layers of the squared relative distance of firing rate to target. Scalar.

    rates [K] are mean spikes per neuron and time step; (rate / target - 1)^2 makes the weight mean
    the same for any target.
    """
    return ((rates / target_rate - 1.0) ** 2).sum()


def cloning(
    q: Tensor,  # [B, A]
    old_q: Tensor,  # [B, A] of the network as it was
    mask: Tensor,  # [B, A] bool, actions that exist in that game
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """CLEAR's two cloning losses for a Q-learner (Rolnick 2019, eq. 2 and 3).

    Returns KL(softmax(old_q / temperature) || softmax(q / temperature)) [B] and the mean squared
    difference of the values over the actions that exist [B].
    """
    _same_batch(q, old_q, mask)
    log_new = torch.log_softmax((q / temperature).masked_fill(~mask, -1e9), 1)
    log_old = torch.log_softmax((old_q / temperature).masked_fill(~mask, -1e9), 1)
    policy = (log_old.exp() * (log_old - log_new)).sum(1)
    value = ((q - old_q) ** 2 * mask).sum(1) / mask.sum(1)
    return policy, value


def self_prediction(made: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    """1 - cosine similarity of predicted and real projections (SPR, Schwarzer 2021, eq. 4).

    made, wanted [M, P]; there [M] bool, the rows that count. Mean over those, scalar. Departure:
    the mean of the real projections is taken out of both, since what all moments have in common
    makes up nearly all of their similarity and says nothing of what comes next.
    """
    _same_batch(made, wanted, there)
    wanted = wanted.detach()
    common = (wanted * there[:, None]).sum(0) / there.sum().clamp_min(1)
    distance = 1 - torch.cosine_similarity(made - common, wanted - common, 1)
    return _mean_where(distance, there)


def reward_classes(logits: Tensor, reward: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy of the sign of the reward: logits [K, B, 3] of -1, 0, 1, reward and counts
    [K, B]. Mean over the steps that count, scalar."""
    wanted = reward.sign().long() + 1
    entropy = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), reduction="none"
    )
    return _mean_where(entropy, counts.flatten())


def termination(logits: Tensor, terminated: Tensor, counts: Tensor) -> Tensor:
    """Binary cross entropy of the episode going on; all [K, B]. Mean over the steps that count."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, (~terminated).to(logits.dtype), reduction="none"
    )
    return _mean_where(entropy, counts)


def imagined_value(made: Tensor, wanted: Tensor, mask: Tensor, there: Tensor) -> Tensor:
    """How far the values of imagined latents are from those of the real ones.

    made, wanted [M, A, Z] logits; mask [M, A] bool, actions that exist; there [M] bool. KL
    divergence of the return distributions, or half the squared error for Z = 1; mean over the
    actions that exist and the rows that count, scalar.
    """
    _same_batch(made, wanted, mask, there)
    if made.shape[-1] == 1:
        apart = 0.5 * (made - wanted)[..., 0] ** 2
    else:
        log_made, log_wanted = torch.log_softmax(made, -1), torch.log_softmax(wanted, -1)
        apart = (log_wanted.exp() * (log_wanted - log_made)).sum(-1)  # [M, A]
    return _mean_where((apart * mask).sum(1) / mask.sum(1), there)


def advantages(made: Tensor, wanted: Tensor, mask: Tensor, there: Tensor) -> Tensor:
    """How far the differences between actions are from those wanted.

    made, wanted [M, A] values; mask [M, A] bool, actions that exist; there [M] bool, rows that
    count. Both are centred over the actions of a row; the squared error is a share of the variance
    wanted, so that it means the same in every game: 1 where made knows no difference. Scalar.
    """
    _same_batch(made, wanted, mask, there)
    counts = (mask & there[:, None]).to(made.dtype)
    number = counts.sum(1, keepdim=True).clamp_min(1)

    def centred(values: Tensor) -> Tensor:
        values = torch.where(mask, values, 0.0)
        return (values - (values * counts).sum(1, keepdim=True) / number) * counts

    wanted = centred(wanted.detach())
    apart = (centred(made) - wanted).square().sum()
    return apart / wanted.square().sum().clamp_min(1e-6)


def masked_argmax(q: Tensor, mask: Tensor) -> Tensor:
    """Greedy action [B] among those that `mask` [B, A] allows in q [B, A]."""
    return q.masked_fill(~mask, -torch.inf).argmax(1)


def _mean_where(x: Tensor, counts: Tensor) -> Tensor:
    """Mean of x over the places where `counts`, of the same shape; 0 where there is none."""
    return (x * counts).sum() / counts.sum().clamp_min(1)


def _same_batch(*tensors: Tensor) -> None:
    sizes = {t.shape[0] for t in tensors}
    if len(sizes) != 1:
        raise ValueError(f"batch sizes differ: {sorted(sizes)}")
