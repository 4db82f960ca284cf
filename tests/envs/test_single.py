"""The Python-driven emulators against ale-py's native vector class, and their saved states."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from envs import Task, atari100k, machado2018, make_core, make_vector_env
from envs.core import KEEP_RANDOM
from envs.preprocess import area_weights
from envs.single import SingleEmulator

EVERYWHERE = np.ones(2, dtype=bool)


@pytest.mark.parametrize(
    ("rom", "protocol"),
    [
        ("breakout", replace(machado2018(), noop_max=30)),
        ("krull", replace(atari100k(), fire_reset=True)),
        ("pong", replace(machado2018(), max_frames=400)),
        ("pacman", replace(atari100k(), noop_max=0)),  # 250 lines
    ],
)
def test_frames_rewards_and_lives_equal_the_native_class(rom, protocol):
    if not sys.platform.startswith("linux"):  # elsewhere another standard library draws no-ops
        protocol = replace(protocol, noop_max=0)
    native = make_core(Task(rom, 1), protocol, 2)
    single = make_core(Task(rom, 1), protocol, 2, single=True)
    seeds = np.array([21, 22])
    for a, b in zip(native.reset(EVERYWHERE, seeds), single.reset(EVERYWHERE, seeds)):
        np.testing.assert_array_equal(a, b)
    rng = np.random.default_rng(0)
    overs = rewards = 0
    for _ in range(400):
        actions = rng.integers(0, 18, 2)
        native.send(actions)
        single.send(actions)
        step, other = native.recv(), single.recv()
        for a, b in zip(step, other):
            np.testing.assert_array_equal(a, b)
        rewards += np.abs(step.reward).sum()
        over = step.terminated | step.truncated
        if over.any():
            keep = np.full(over.sum(), KEEP_RANDOM)
            for a, b in zip(native.reset(over, keep), single.reset(over, keep)):
                np.testing.assert_array_equal(a, b)
            overs += over.sum()
    assert rewards > 0
    assert overs > 0 or rom in ("krull", "pacman")
    native.close()
    single.close()


def test_a_cloned_state_can_be_taken_up_again_and_elsewhere():
    protocol = machado2018()
    emulator = SingleEmulator(Task("breakout", 1), protocol)
    emulator.reset(seed=5)
    rng = np.random.default_rng(1)
    for action in rng.integers(0, 18, 40):
        emulator.step(int(action))
    state = emulator.clone_state()
    future = [int(a) for a in rng.integers(0, 18, 60)]

    def follow(player):
        out = []
        for action in future:
            reward = player.step(action)
            out.append((reward, player.lives, player.over, player.stack.tobytes()))
        return out

    first = follow(emulator)
    assert len({frame for *_, frame in first}) > 10
    emulator.restore_state(state)
    assert follow(emulator) == first
    other = SingleEmulator(Task("breakout", 1), protocol)
    other.restore_state(state)
    assert follow(other) == first


def test_modes_differ_and_episodes_restart():
    frames = {}
    for mode in (0, 3):
        env = make_vector_env(Task("space_invaders", 1, mode=mode), machado2018(), 1, seed=1)
        env.reset()
        for _ in range(80):
            obs, *_ = env.step(np.array([0]))
        frames[mode] = obs
    assert (frames[0] != frames[3]).any()
    native = make_vector_env(Task("space_invaders", 1), machado2018(), 1, seed=1)
    native.reset()
    for _ in range(80):
        obs, *_ = native.step(np.array([0]))
    np.testing.assert_array_equal(obs, frames[0])  # mode 0 is the default
    native.close()


def test_first_reset_needs_a_seed():
    with pytest.raises(RuntimeError, match="seed"):
        SingleEmulator(Task("pong", 1), machado2018()).reset()


def test_area_weights_cover_each_source_pixel_once():
    for source in (160, 210):
        start, weights = area_weights(source, 84)
        np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-6)
        covered = np.zeros(source + weights.shape[1])
        for s, row in zip(start, weights):
            covered[s : s + len(row)] += row
        np.testing.assert_allclose(covered[:source], 84 / source, rtol=1e-5)
        assert (covered[source:] == 0).all()
