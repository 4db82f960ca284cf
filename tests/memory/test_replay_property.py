"""Replay against a model that stores whole stacks: every item drawn equals the model's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_model import ModelReplay
from replay_world import FakeWorld

from memory import ReplayBuffer


class Each:
    """A generator that draws everything once."""

    def integers(self, low, high=None, size=None):
        return np.arange(low)

    def random(self, size):  # new transitions have equal priorities: the middle of each stratum
        return np.full(size, 0.5)


def key(obs_tm1):
    return obs_tm1.tobytes()


def check(replay, model, n_step, capacity, slack):
    windows = {key(w["obs_tm1"]): w for w in model.windows(n_step)}
    order = {}
    for w in model.windows(n_step):
        order.setdefault(w["env"], []).append(key(w["obs_tm1"]))
    assert len(replay) <= capacity
    if len(replay) == 0:
        assert len(windows) == 0
        return
    batch = replay.sample(len(replay), n_step, Each())
    drawn = [key(o) for o in batch.obs_tm1]
    assert len(set(drawn)) == len(drawn)
    for b, name in enumerate(drawn):
        w = windows[name]
        assert batch.action_tm1[b] == w["action"]
        np.testing.assert_array_equal(batch.rewards[b], w["rewards"])
        assert batch.steps[b] == w["steps"]
        assert batch.terminated[b] == w["terminated"]
        np.testing.assert_array_equal(batch.obs_t[b], w["obs_t"])
        assert batch.task[b] == w["task"]
    check_sequences(replay, windows, n_step)
    drawn = set(drawn)
    for names in order.values():  # what is missing is the oldest of each environment
        held = [name in drawn for name in names]
        assert held == sorted(held)
    assert len(drawn) >= min(len(windows), capacity - slack)


def check_sequences(replay, windows, length):
    """Along a window every step of the sequence is what the model's own transitions say."""
    batch = replay.sample_sequences(len(replay), length, Each())
    obs = batch.obs()
    for b in range(len(obs)):
        w = windows[key(obs[b, 0])]
        k = batch.steps[b]
        assert k == w["steps"]
        np.testing.assert_array_equal(batch.rewards[b], w["rewards"])
        assert batch.action[b, 0] == w["action"]
        np.testing.assert_array_equal(batch.terminated[b, : k - 1], False)
        assert batch.terminated[b, k - 1] == w["terminated"]
        assert not batch.terminated[b, k:].any()
        assert not batch.action[b, k:].any()
        assert batch.task[b] == w["task"]
        if not w["terminated"]:
            np.testing.assert_array_equal(obs[b, k], w["obs_t"])
        for t in range(1, k):  # a later observation opens a window of its own, unless not ready
            later = windows.get(key(obs[b, t]))
            if later is not None:
                assert batch.action[b, t] == later["action"]
                assert later["rewards"][0] == w["rewards"][t]


rates = st.sampled_from([0.0, 0.02, 0.1, 0.5])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_envs=st.integers(1, 4),
    n_max=st.integers(1, 6),
    room=st.integers(0, 60),
    blank_start=st.booleans(),
    ends=st.tuples(rates, rates, rates, rates),
    cuts=rates,
    prioritised=st.booleans(),
)
def test_equals_the_model(seed, num_envs, n_max, room, blank_start, ends, cuts, prioritised):
    capacity = 2 * num_envs * (n_max + 1) + room
    replay = ReplayBuffer(capacity, num_envs, n_max, prioritised=prioritised, frame_shape=(2, 3))
    model = ModelReplay(num_envs, n_max)
    world = FakeWorld(num_envs, seed, blank_start=blank_start)
    rng = np.random.default_rng(seed)
    task = 0
    # Streams that end often use slots for what is no transition; each env may have n_max waiting.
    often = max(ends) > 0.02 or cuts > 0.02
    slack = num_envs * (n_max + 5) + (capacity if often else capacity // 8)
    for t in range(300):
        step = world.step(*ends, task=task)
        replay.add(**step)
        model.add(*step.values())
        if rng.random() < cuts / 10:
            replay.cut(world.obs)
            model.cut(world.obs, world.first)
            world.reset()
            task += 1
        if t % 29 == 0:
            check(replay, model, int(rng.integers(1, n_max + 1)), capacity, slack)
    check(replay, model, n_max, capacity, slack)


@pytest.mark.parametrize("ends", [(0.03, 0.02, 0.1, 0.01), (0.3, 0.2, 0.3, 0.1)])
def test_thousands_of_steps(ends):
    capacity, num_envs, n_max = 300, 3, 10
    replay = ReplayBuffer(capacity, num_envs, n_max, frame_shape=(2, 3))
    model = ModelReplay(num_envs, n_max)
    world = FakeWorld(num_envs, 7, blank_start=False)
    for t in range(3000):
        step = world.step(*ends, task=t // 1000)
        replay.add(**step)
        model.add(*step.values())
        if t % 1000 == 999:
            replay.cut(world.obs)
            model.cut(world.obs, world.first)
            world.reset()
        if t % 331 == 0 or t % 1000 == 999:
            check(replay, model, n_max, capacity, capacity)
