"""Prioritised draws: proportions, importance weights, the sum tree."""

import numpy as np
import pytest
from replay_world import FakeWorld

from errors import UserError
from memory import ReplayBuffer
from memory.sum_tree import find_leaf, make_tree, rebuild, set_leaf


def filled(alpha=0.5, steps=60, capacity=200):
    world = FakeWorld(2, 0)
    replay = ReplayBuffer(capacity, 2, 2, prioritised=True, alpha=alpha, frame_shape=(2, 3))
    for _ in range(steps):
        replay.add(**world.step(game_over=0.05))
    return replay, world


def everything(replay):
    """Names of all that can be drawn."""
    return np.unique(replay.sample(20_000, 1, np.random.default_rng(9)).indices)


def test_tree_finds_each_leaf_in_proportion():
    tree = make_tree(5)
    for leaf, value in enumerate([1.0, 0.0, 2.0, 0.0, 1.0]):
        set_leaf(tree, leaf, value)
    assert tree[1] == 4
    assert [find_leaf(tree, m) for m in (0.0, 0.99, 1.0, 2.99, 3.0, 3.99)] == [0, 0, 2, 2, 4, 4]
    assert find_leaf(tree, 4.0) == 4  # rounding up to the total stays inside
    copy = np.zeros_like(tree)
    copy[len(tree) // 2 :] = tree[len(tree) // 2 :]
    rebuild(copy)
    np.testing.assert_array_equal(copy, tree)


def test_draws_follow_priority_to_the_power_of_alpha():
    replay, _ = filled(alpha=0.7)
    names = everything(replay)
    errors = np.random.default_rng(1).exponential(size=len(names))
    replay.update_priorities(names, -errors)
    share = (errors + 1e-6) ** 0.7
    share /= share.sum()
    batch = replay.sample(50_000, 1, np.random.default_rng(2), beta=0.4)
    counts = np.searchsorted(names, batch.indices)
    counts = np.bincount(counts, minlength=len(names))
    np.testing.assert_allclose(counts / 50_000, share, atol=2.1 / 50_000)  # one draw a stratum
    drawn = share[np.searchsorted(names, batch.indices)]
    weights = (len(names) * drawn) ** -0.4
    np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-5)
    assert batch.weights.max() == 1


def test_new_transitions_get_the_greatest_priority_so_far():
    replay, world = filled(alpha=1.0)
    names = everything(replay)
    replay.update_priorities(names, np.full(len(names), 0.5))
    replay.update_priorities(names[:1], [4.0])
    replay.update_priorities(names[:1], [0.5])
    for _ in range(3):
        replay.add(**world.step())
    new = np.setdiff1d(everything(replay), names)
    assert len(new) >= 4
    drawn = replay.sample(20_000, 1, np.random.default_rng(3)).indices
    share = np.isin(drawn, new).mean()
    assert share == pytest.approx(4 * len(new) / (4 * len(new) + 0.5 * len(names)), abs=1e-3)


def test_priorities_of_what_was_overwritten_change_nothing():
    replay, world = filled(steps=150, capacity=100)
    old = everything(replay)
    for _ in range(200):
        replay.add(**world.step(game_over=0.05))
    assert not np.isin(everything(replay), old).any()
    before = replay._ring.tree.copy()
    replay.update_priorities(old, np.full(len(old), 1e6))
    np.testing.assert_array_equal(replay._ring.tree, before)
    assert replay._ring.top[0] == 1


def test_only_ready_transitions_have_a_leaf():
    replay, world = filled(steps=10)
    for _ in range(300):
        replay.add(**world.step(0.1, 0.05, 0.1, 0.02))
        leaves = replay._ring.tree[len(replay._ring.tree) // 2 :]
        ready = replay._ring.ready[: len(replay)]
        np.testing.assert_array_equal(np.flatnonzero(leaves), np.sort(ready))


def test_refuses_errors_that_are_not_finite():
    replay, _ = filled()
    names = everything(replay)[:2]
    with pytest.raises(ValueError, match="finite"):
        replay.update_priorities(names, [0.0, np.nan])


def test_refuses_the_state_of_another_buffer():
    replay, _ = filled()
    other = ReplayBuffer(200, 2, 2, prioritised=False, frame_shape=(2, 3))
    with pytest.raises(UserError, match="prioritised"):
        other.load_state_dict(replay.state_dict())
