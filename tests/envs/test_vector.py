"""Episodes, returns and lives as the vector environment reports them, on real games."""

from dataclasses import replace

import numpy as np
import pytest

from envs import Task, atari100k, machado2018, make_vector_env
from envs.factory import make_core
from errors import require


def play(env, steps, seed=0):
    """Random allowed actions; yields (observation before, results)."""
    rng = np.random.default_rng(seed)
    allowed = np.flatnonzero(env.action_mask)
    for _ in range(steps):
        before = env.observations
        yield before, env.step(rng.choice(allowed, env.num_envs))


def test_true_returns_and_lives_under_life_loss():
    env = make_vector_env(Task("breakout", 1), atari100k(), 3, seed=5)
    obs, _ = env.reset()
    assert obs.shape == (3, 4, 84, 84)
    assert obs.dtype == np.uint8
    assert obs.flags.c_contiguous
    assert env.num_actions == 4
    total, length, lives = np.zeros(3), np.zeros(3, int), np.full(3, 5)
    episodes = losses = 0
    for before, (obs, reward, terminated, truncated, info) in play(env, 500):
        assert reward.dtype == np.float32
        total += reward
        length += 1
        over, lost = info["episode_over"], info["life_lost"]
        lives -= lost
        assert not (over & lost).any()
        assert (terminated == (over | lost)).all()  # no frame cap is reached here
        assert not truncated.any()
        assert np.isnan(info["episode_return"][~over]).all()
        assert (info["episode_length"][~over] == 0).all()
        assert (info["final_obs"] is None) == (not over.any())
        for i in np.flatnonzero(over):
            assert lives[i] == 1  # the last life ends the game and is no separate loss
            assert info["episode_return"][i] == total[i]
            assert info["episode_length"][i] == length[i]
            # the final stack continues the one before; the new episode's starts black
            np.testing.assert_array_equal(info["final_obs"][i][:3], before[i][1:])
            assert (obs[i][:3] == 0).all()
            assert env.episode_starts[i]
        for i in np.flatnonzero(lost):
            np.testing.assert_array_equal(obs[i][:3], before[i][1:])  # the game goes on
        total[over], length[over], lives[over] = 0, 0, 5
        assert (info["lives"] == lives).all()
        episodes += over.sum()
        losses += lost.sum()
    assert episodes >= 3
    assert losses >= 4 * episodes
    env.close()


def test_life_loss_ends_nothing_outside_training():
    env = make_vector_env(Task("breakout", 1), atari100k(), 2, seed=5, training=False)
    env.reset()
    lost = 0
    for _, (_, _, terminated, _, info) in play(env, 150):
        assert (terminated == info["episode_over"]).all()
        lost += info["life_lost"].sum()
    assert lost > 0
    env.close()


def test_frame_cap_truncates_and_counts_as_an_episode():
    protocol = replace(machado2018(), max_frames=80)
    env = make_vector_env(Task("pong", 1), protocol, 2, seed=1)
    env.reset()
    ends = 0
    for t, (_, (_, _, terminated, truncated, info)) in enumerate(play(env, 60), start=1):
        assert not terminated.any()
        assert (truncated == (t % 20 == 0)).all()
        assert (info["episode_over"] == truncated).all()
        if truncated.any():
            assert (info["episode_length"] == 20).all()
            ends += 1
    assert ends == 3
    env.close()


def test_same_seed_same_play_and_other_seed_other_play():
    def frames(seed, threads):
        env = make_vector_env(Task("breakout", 1), machado2018(), 2, seed, num_threads=threads)
        env.reset()
        out = [results[0].copy() for _, results in play(env, 60)]
        env.close()
        return np.stack(out)

    first = frames(3, 1)
    np.testing.assert_array_equal(first, frames(3, 2))
    assert (first != frames(4, 1)).any()
    assert (first[:, 0] != first[:, 1]).any()


def test_reset_with_a_seed_starts_over():
    env = make_vector_env(Task("catch", 1), machado2018(), 4, seed=3)
    first, _ = env.reset()
    again, _ = env.reset()
    start_over, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, start_over)
    assert (first != again).any()


def test_order_of_calls_is_checked():
    env = make_vector_env(Task("catch", 1), machado2018(), 2, seed=3)
    actions = np.zeros(2, dtype=np.int64)
    with pytest.raises(RuntimeError, match="before send"):
        env.send(actions)
    env.reset()
    with pytest.raises(RuntimeError, match="without send"):
        env.recv()
    env.send(actions)
    with pytest.raises(RuntimeError, match="without recv"):
        env.send(actions)
    with pytest.raises(RuntimeError, match="between"):
        env.state_dict()
    env.recv()
    with pytest.raises(ValueError, match="3 actions for 2"):
        env.send(np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="reset options"):
        env.reset(options={"reset_mask": None})


def test_a_core_that_was_interrupted_as_it_received_is_closed_at_once():
    """A second signal may come just then; waiting for what has come already would never end."""
    core = make_core(Task("pong", 1), atari100k(), 2, single=False)
    core.reset(np.ones(2, bool), np.arange(2))
    core.send(np.zeros(2, np.int64))
    whole, received = core._env.ale, []

    class Interrupted:
        def recv(self):
            require(not received, "it waits for what has come already")
            received.append(whole.recv())
            raise KeyboardInterrupt

    core._env.ale = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        core.recv()
    core.close()


def test_a_core_is_closed_in_the_middle_of_a_step():
    for received in (False, True):
        core = make_core(Task("pong", 1), atari100k(), 2, single=False)
        core.reset(np.ones(2, bool), np.arange(2))
        core.send(np.zeros(2, np.int64))
        core._in_flight = not received  # True: interrupted just before it would have received
        core.close()
