"""A vector environment rebuilt from its state goes on exactly as the one that was saved."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

import envs.vector
from envs import Task, atari100k, machado2018, make_vector_env
from errors import UserError

STICKY_100K = replace(atari100k(), sticky=0.25)  # no-op starts, life loss and stickiness at once


def through_file(state):
    """As a checkpoint does: tensors in place of arrays, loaded without unpickling objects."""

    def swap(value):
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, list):
            return [swap(v) for v in value]
        return value

    file = io.BytesIO()
    torch.save({k: swap(v) for k, v in state.items()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(results, others):
    for a, b in zip(results[:4], others[:4]):
        np.testing.assert_array_equal(a, b)
    assert results[4].keys() == others[4].keys()
    for key, value in results[4].items():
        np.testing.assert_array_equal(value, others[4][key])


def walk(env, steps, rng):
    allowed = np.flatnonzero(env.action_mask)
    return [rng.choice(allowed, env.num_envs) for _ in range(steps)]


@pytest.mark.parametrize(
    ("task", "protocol", "before"),
    [
        (Task("breakout", 1), STICKY_100K, 330),  # several games a segment, and a reseed
        (Task("krull", 1), machado2018(), 150),
        (Task("space_invaders", 1, mode=3), STICKY_100K, 150),
        (Task("catch", 1), STICKY_100K, 333),
    ],
)
def test_restored_environment_goes_on_identically(task, protocol, before, monkeypatch):
    monkeypatch.setattr(envs.vector, "RESEED_STEPS", 250)
    env = make_vector_env(task, protocol, 3, seed=11, full_actions=True)
    env.reset()
    rng = np.random.default_rng(2)
    for actions in walk(env, before, rng):
        env.step(actions)
    if task.rom == "breakout":
        logged = env._logged
        assert len(set(logged)) > 1, "environments should have logs of different lengths"
        assert (env._segments > 1).any(), "an environment should have been seeded anew"
        assert (logged > env._lengths).any(), "a log should hold more than one episode"
    other = make_vector_env(task, protocol, 3, seed=99, full_actions=True)
    other.load_state_dict(through_file(env.state_dict()))
    np.testing.assert_array_equal(env.observations, other.observations)
    np.testing.assert_array_equal(env.episode_starts, other.episode_starts)
    for actions in walk(env, 300, rng):
        same(env.step(actions), other.step(actions))
    env.close()
    other.close()


def test_state_right_after_reset_and_into_a_used_environment():
    env = make_vector_env(Task("breakout", 1), machado2018(), 2, seed=1)
    first, _ = env.reset()
    state = env.state_dict()
    used = make_vector_env(Task("breakout", 1), machado2018(), 2, seed=2)
    used.reset()
    for actions in walk(used, 30, np.random.default_rng(0)):
        used.step(actions)
    used.load_state_dict(state)
    np.testing.assert_array_equal(used.observations, first)
    for actions in walk(env, 30, np.random.default_rng(0)):
        same(env.step(actions), used.step(actions))
    env.close()
    used.close()


def test_state_is_a_copy():
    env = make_vector_env(Task("catch", 1), machado2018(), 2, seed=1)
    env.reset()
    state = env.state_dict()
    kept = copy.deepcopy(state)
    for actions in walk(env, 30, np.random.default_rng(0)):
        env.step(actions)
    for key, value in kept.items():
        np.testing.assert_equal(state[key], value)


def test_states_that_do_not_fit_are_refused():
    env = make_vector_env(Task("catch", 1), machado2018(), 2, seed=1)
    env.reset()
    for actions in walk(env, 5, np.random.default_rng(0)):
        env.step(actions)
    state = env.state_dict()
    with pytest.raises(ValueError, match="2 x catch given to 3 x catch"):
        make_vector_env(Task("catch", 1), machado2018(), 3, seed=1).load_state_dict(state)
    state["seeds"] = state["seeds"] + 1  # as if the emulator were another version
    with pytest.raises(UserError, match="does not reproduce"):
        env.load_state_dict(state)
