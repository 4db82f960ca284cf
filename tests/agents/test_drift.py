"""Keys are carried along with an encoder that turns, whether their frames are there or not."""

import numpy as np
import pytest

from agents.episodic.drift import ENOUGH, Carrier, linear_map
from memory.episodic import EpisodicMemory

D = 16


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def turn(rng):
    """A random rotation by about a third of a right angle in every plane."""
    plane = rng.normal(size=(D, D))
    skew = 0.08 * (plane - plane.T)
    return (np.linalg.inv(np.eye(D) - skew) @ (np.eye(D) + skew)).astype(np.float32)


def test_linear_map_finds_a_rotation_and_stays_near_identity_where_nothing_is_known():
    rng = np.random.default_rng(0)
    rotation, x = turn(rng), unit(rng.normal(size=(4000, D)))
    assert np.abs(linear_map(x, x @ rotation) - rotation).max() < 0.05
    flat = x.copy()
    flat[:, 8:] = 0
    mapped = linear_map(flat, -flat)
    assert np.allclose(mapped[8:, 8:], np.eye(8), atol=1e-6)
    assert np.allclose(mapped[:8, :8], -np.eye(8), atol=0.15)


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_keys_without_frames_are_carried_along(index):
    rng = np.random.default_rng(1)
    count, rotation = 1200, turn(rng)
    true = unit(rng.normal(size=(count, D)))  # keys of moments 0..count-1 by the encoder of the day
    there = np.arange(count) % 3 == 0  # whose frames are kept
    memory = EpisodicMemory(2 * count, D, 1, 3, tasks=2, index=index, unit_keys=True)
    refs, zeros = np.arange(count), np.zeros(count)

    def encode(names):
        return true[names[there[names]]], there[names]

    carrier = Carrier(2, D, 0)
    slots = memory.write(true, zeros.astype(int), refs.astype(float), refs, 1, refs)
    carrier.carry(memory, encode)
    assert np.array_equal(memory.keys_at(slots), true)  # nothing has moved yet
    for _ in range(3):
        true = true @ rotation
        for _ in range(4):
            memory.advance_version()
        stale = np.square(memory.keys_at(slots) - true).sum(1)
        carrier.carry(memory, encode)
        gone = ~there
        left = np.square(memory.keys_at(slots) - true).sum(1)
        assert np.median(left[gone]) < 0.1 * np.median(stale[gone])
    assert (memory.moments(slots[gone]).versions == 0).all()  # no encoder has made them
    read = memory.read(true[gone], task=1)
    assert (read.indices[:, 0, 0] == slots[gone]).mean() > 0.95

    # What was encoded just now stays; what was encoded half the way since goes half the way.
    memory.advance_version()
    memory.advance_version()
    half, now = slots[1], slots[2]
    turned = true @ rotation
    (halfway,) = unit(true[1:2] + turned[1:2])
    memory.reembed(np.array([half]), halfway[None])
    memory.advance_version()
    memory.advance_version()
    memory.reembed(np.array([now]), turned[2:3])
    true = turned
    carrier.carry(memory, encode)
    assert np.array_equal(memory.keys_at([now])[0], turned[2])
    left = np.square(memory.keys_at([half])[0] - turned[1]).sum()
    assert left < 0.3 * np.square(halfway - turned[1]).sum()


def test_too_few_anchors_carry_nothing():
    rng = np.random.default_rng(2)
    count = ENOUGH - 1
    keys, refs = unit(rng.normal(size=(count, D))), np.arange(count)
    memory = EpisodicMemory(100, D, 1, 3, unit_keys=True)
    slots = memory.write(keys, np.zeros(count, int), np.zeros(count), refs, 0, refs)
    carrier = Carrier(1, D, 0)
    carrier.carry(memory, lambda names: (keys[names], names >= 0))
    memory.advance_version()
    lost = np.array([0])  # its frames are gone
    gone = lambda names: (-keys[names[names > 0]], names > 0)  # noqa: E731
    carrier.carry(memory, gone)
    assert np.array_equal(memory.keys_at(slots[lost]), keys[lost])
    again = Carrier(1, D, 5)
    again.load_state_dict(carrier.state_dict())
    assert again.version == carrier.version == 1
    assert np.array_equal(again.keys, carrier.keys)
    assert np.array_equal(again.refs, carrier.refs)
    assert (again.refs >= 0).sum() == count - 1
    assert again.rng.integers(1000) == carrier.rng.integers(1000)
