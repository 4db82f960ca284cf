"""Golden numbers of the pure losses, computed by hand or by a plain loop."""

import numpy as np
import pytest
import torch

from agents import losses, schedules


def test_n_step_return_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0], [3.0, 5.0, 0.0]])
    steps = torch.tensor([3, 1, 2])
    terminated = torch.tensor([False, True, False])
    r, discount = losses.n_step_return(rewards, steps, terminated, 0.5)
    assert r.tolist() == [1 + 1 + 1, 1.0, 3 + 2.5]
    assert discount.tolist() == [0.125, 0.0, 0.25]


def test_rewards_beyond_the_window_do_not_count():
    rewards = torch.tensor([[1.0, 100.0]])
    r, _ = losses.n_step_return(rewards, torch.tensor([1]), torch.tensor([False]), 0.9)
    assert r.item() == 1.0


def test_double_q_evaluates_the_selected_action():
    value = torch.tensor([[10.0, 20.0, 30.0]])
    select = torch.tensor([[1.0, 0.0, 5.0]])
    mask = torch.tensor([[True, True, False]])  # the best one does not exist in this game
    target = losses.double_q_targets(value, select, mask, torch.tensor([1.0]), torch.tensor([0.9]))
    assert target.item() == pytest.approx(1 + 0.9 * 10)


def projection_by_loop(probs, r, discount, support):
    """Algorithm 1 of Bellemare 2017, atom by atom."""
    out = np.zeros_like(probs)
    delta = support[1] - support[0]
    for b in range(len(probs)):
        for j, z in enumerate(support):
            position = (
                np.clip(r[b] + discount[b] * z, support[0], support[-1]) - support[0]
            ) / delta
            low, high = int(np.floor(position)), int(np.ceil(position))
            if low == high:
                out[b, low] += probs[b, j]
            else:
                out[b, low] += probs[b, j] * (high - position)
                out[b, high] += probs[b, j] * (position - low)
    return out


def test_projection_equals_the_published_algorithm():
    rng = np.random.default_rng(0)
    support = np.linspace(-10, 10, 51)
    probs = rng.dirichlet(np.ones(51), size=16)
    r, discount = rng.normal(0, 4, 16), rng.uniform(0, 1, 16)
    ours = losses.categorical_projection(*(torch.tensor(x) for x in (probs, r, discount, support)))
    np.testing.assert_allclose(ours, projection_by_loop(probs, r, discount, support), atol=1e-12)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-12)


def test_huber_is_quadratic_then_linear():
    error = torch.tensor([0.5, -2.0])
    assert losses.huber(error).tolist() == [0.125, 1.5]


def test_spike_rate_penalty_is_zero_at_the_target_and_pulls_towards_it():
    rates = torch.tensor([0.2, 0.05], requires_grad=True)
    losses.spike_rate_penalty(rates, 0.1).backward()
    assert rates.grad[0] > 0 > rates.grad[1]
    assert losses.spike_rate_penalty(torch.tensor([0.1]), 0.1).item() == 0


def test_batch_sizes_must_agree():
    with pytest.raises(ValueError, match="batch sizes differ"):
        losses.n_step_return(torch.ones(2, 3), torch.ones(3), torch.zeros(2, dtype=bool), 0.9)


def test_schedules_meet_their_ends():
    assert schedules.linear(1, 0, 10, 0) == 1
    assert schedules.linear(1, 0, 10, 5) == 0.5
    assert schedules.linear(1, 0, 10, 99) == 0
    assert [schedules.linear(1, 0, 0, t) for t in (-1, 0, 1)] == [1, 0, 0]
    assert schedules.exponential(10, 3, 100, 0) == 10
    assert schedules.exponential(10, 3, 100, 50) == pytest.approx(np.sqrt(30))
    assert schedules.exponential(10, 3, 100, 100) == 3
    horizon = 1 / (1 - schedules.discount_schedule(0.97, 0.997, 100, 50))
    assert horizon == pytest.approx(np.sqrt((1 / 0.03) * (1 / 0.003)))
