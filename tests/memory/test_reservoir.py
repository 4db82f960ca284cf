"""The reservoir keeps every transition with the same chance, and its windows are true."""

import numpy as np
import pytest
from scipy.stats import chisquare

from memory.mixed_replay import MixedReplay
from memory.replay import ReplayBuffer
from memory.reservoir import ReservoirReplay

SHAPE = (2, 3)


def fill(buffers, steps, num_envs=2, life=23, start=0, task=0):
    """Frame, action and reward of step t are functions of t; episodes last `life` steps."""
    for t in range(start, start + steps):
        age = t % life
        newest = t - np.minimum(np.arange(3, -1, -1), age)  # a reset repeats its first frame
        obs = np.zeros((num_envs, 4, *SHAPE), np.uint8)
        obs += (newest % 251 + 1)[None, :, None, None].astype(np.uint8)
        over = np.full(num_envs, age == life - 1)
        reward = np.full(num_envs, t, np.float32)
        no = np.zeros(num_envs, bool)
        first = np.full(num_envs, age == 0)
        for buffer in buffers:
            buffer.add(obs, np.full(num_envs, t), reward, over, no, first, task)


def test_every_segment_of_a_long_stream_is_kept_with_the_same_chance():
    counts = np.zeros(20)
    total = 400
    for seed in range(150):
        buffer = ReservoirReplay(60, 1, 2, seed=seed, frame_shape=SHAPE, length=2)
        fill([buffer], total * 2 + 1, num_envs=1, life=10**9)
        kept = buffer._data["reward"][:, 0] // 2  # index of the segment in the stream
        counts += np.bincount((kept * 20 // total).astype(int), minlength=20)
    assert chisquare(counts).pvalue > 0.001
    newest_only = np.r_[np.zeros(18), counts.sum() / 2, counts.sum() / 2]
    assert chisquare(newest_only + 1).pvalue < 1e-6  # the test would see a fifo


def test_windows_hold_what_was_seen():
    buffer = ReservoirReplay(400, 2, 5, frame_shape=SHAPE, length=8)
    fill([buffer], 120)
    batch = buffer.sample(256, 5, np.random.default_rng(0))
    t = batch.action_tm1
    for k in range(5):
        inside = k < batch.steps
        assert (batch.rewards[inside, k] == t[inside] + k).all()
        assert (batch.rewards[~inside, k] == 0).all()
    assert (batch.obs_tm1[:, -1, 0, 0] == t % 251 + 1).all()
    oldest = t - np.minimum(3, t % 23)
    assert (batch.obs_tm1[:, 0, 0, 0] == oldest % 251 + 1).all()
    on = ~batch.terminated
    assert (batch.obs_t[on, -1, 0, 0] == (t + batch.steps)[on] % 251 + 1).all()
    assert (((t + batch.steps) % 23 == 0) >= batch.terminated).all()
    assert batch.terminated.any()
    assert (batch.steps[on] >= 1).all()


def test_same_bytes_as_the_ring():
    ring = ReplayBuffer(5000, 2, 5, frame_shape=SHAPE)._frames.array.nbytes
    both = ReservoirReplay(5000, 2, 5, frame_shape=SHAPE).nbytes()
    assert 0.97 * ring < both <= ring


def test_half_of_a_batch_is_new_and_old_games_stay():
    mixed = MixedReplay(
        ReplayBuffer(200, 2, 3, frame_shape=SHAPE),
        ReservoirReplay(400, 2, 3, frame_shape=SHAPE, length=4),
    )
    fill([mixed], 23 * 8, task=0)
    mixed.cut(np.zeros((2, 4, *SHAPE), np.uint8))
    fill([mixed], 23 * 8, start=23 * 8, task=1)
    batch = mixed.sample(400, 3, np.random.default_rng(1))
    assert (batch.task[:200] == 1).all()
    assert 0.3 < (batch.task[200:] == 0).mean() < 0.7


def test_the_last_steps_turn_out_to_be_of_another_task():
    mixed = MixedReplay(
        ReplayBuffer(60, 2, 3, frame_shape=SHAPE),
        ReservoirReplay(400, 2, 3, frame_shape=SHAPE, length=8),
    )
    fill([mixed], 5, task=0)
    mixed.relabel(3, 1)  # the segments that are open are older: they stay whole
    mixed.cut(np.full((2, 4, *SHAPE), 6, np.uint8))
    rng = np.random.default_rng(0)
    batch = mixed.fifo.sample(100, 1, rng)
    assert (batch.task == (batch.action_tm1 >= 2)).all()
    assert set(mixed.reservoir.sample(100, 1, rng).task) == {0}
    fill([mixed], 3, start=5, task=0)
    mixed.relabel(3, 1)
    mixed.cut(np.full((2, 4, *SHAPE), 9, np.uint8))
    for replay in (mixed.fifo, mixed.reservoir):
        batch = replay.sample(200, 1, rng)
        assert (batch.task[batch.action_tm1 >= 5] == 1).all()
        assert (batch.action_tm1 >= 5).any()


def test_what_follows_an_alarm_is_never_of_the_old_task():
    replay = ReservoirReplay(400, 2, 3, frame_shape=SHAPE, length=32)
    fill([replay], 5, task=0)
    replay.relabel(3, 1)  # the segments that are open are older
    fill([replay], 6, start=5, task=1)
    replay.cut(np.zeros((2, 4, *SHAPE), np.uint8) + np.arange(9, 13, dtype=np.uint8)[:, None, None])
    batch = replay.sample(400, 1, np.random.default_rng(0))
    assert set(batch.action_tm1) == set(range(11))
    assert (batch.task == (batch.action_tm1 >= 5)).all()


@pytest.mark.parametrize("steps", [37, 150])
def test_state_goes_round_and_the_future_is_the_same(steps):
    one = ReservoirReplay(200, 2, 3, seed=5, frame_shape=SHAPE, length=4)
    fill([one], steps)
    two = ReservoirReplay(200, 2, 3, seed=6, frame_shape=SHAPE, length=4)
    two.load_state_dict(one.state_dict())
    fill([one, two], 100, start=steps)
    a, b = (r.sample(64, 3, np.random.default_rng(2)) for r in (one, two))
    assert all((x == y).all() for x, y in zip(a, b))
