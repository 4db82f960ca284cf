import numpy as np
import pytest

from envs import Task, atari100k, machado2018, make_vector_env
from envs.catch import BALL, CELL, PADDLE
from envs.scores import hns

STAY, RIGHT, LEFT = 0, 1, 2


def expert(obs):
    """Follow the ball, from the newest frame."""
    grid = obs[:, -1, ::CELL, ::CELL]
    ball = (grid == BALL).any(1).argmax(1)
    paddle = (grid[:, -1] == PADDLE).argmax(1) + 1
    return np.where(ball > paddle, RIGHT, np.where(ball < paddle, LEFT, STAY))


def average_return(policy, steps=1100, protocol=None, num_envs=16):
    env = make_vector_env(Task("catch", 1), protocol or atari100k(), num_envs, seed=4)
    obs, _ = env.reset()
    returns = []
    for _ in range(steps):
        obs, _, _, _, info = env.step(policy(obs))
        returns.extend(info["episode_return"][info["episode_over"]])
    assert len(returns) == steps // 11 * num_envs
    return np.mean(returns)


def test_perfect_and_random_play_match_the_scale():
    assert average_return(expert) == 1.0
    rng = np.random.default_rng(0)
    random = average_return(lambda obs: rng.integers(0, 3, len(obs)))
    assert random == pytest.approx(-0.5, abs=0.07)  # 1600 episodes: standard error 0.022
    assert hns("catch", -0.5) == 0.0
    assert hns("catch", 1.0) == 1.0


def test_one_episode_frame_by_frame():
    env = make_vector_env(Task("catch", 1), atari100k(), 1, seed=0)
    obs, _ = env.reset()
    assert obs.shape == (1, 4, 84, 84)
    assert (obs[0, :3] == 0).all()
    column = (obs[0, -1, 0, ::CELL] == BALL).argmax()
    for row in range(1, 12):
        before = obs
        obs, reward, terminated, truncated, info = env.step(np.array([STAY]))
        last = info["final_obs"][0] if row == 11 else obs[0]
        np.testing.assert_array_equal(last[:3], before[0, 1:])
        assert last[-1, row * CELL, column * CELL] == BALL
        assert terminated[0] == (row == 11)
        assert not truncated[0]
        assert (reward[0] != 0) == (row == 11)
    assert reward[0] == (1.0 if abs(column - 6) <= 1 else -1.0)
    assert info["episode_length"][0] == 11


def test_paddle_moves_and_stops_at_the_walls():
    env = make_vector_env(Task("catch", 1), atari100k(), 1, seed=0)
    env.reset()
    places = []
    for _ in range(8):
        obs, *_ = env.step(np.array([RIGHT]))
        places.append((obs[0, -1, -1, ::CELL] == PADDLE).argmax() + 1)
    assert places == [7, 8, 9, 10, 10, 10, 10, 10]


def test_sticky_actions_repeat_the_one_before():
    steps = 440
    env = make_vector_env(Task("catch", 1), machado2018(), 1, seed=0)
    env.reset()
    repeats = 0
    for t in range(steps):
        obs, *_, info = env.step(np.array([3 if t % 11 == 5 else 4 if t % 11 == 6 else 0]))
        frame = info["final_obs"][0] if info["episode_over"][0] else obs[0]
        if t % 11 == 5:  # RIGHT after standing still: 7, unless the stillness sticks
            repeats += (frame[-1, -1, ::CELL] == PADDLE).argmax() + 1 == 6
    assert repeats / (steps / 11) == pytest.approx(0.25, abs=0.2)
