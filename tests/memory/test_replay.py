"""Golden windows of the replay, its edges, and what it refuses. Frames are 1 x 2 pixels."""

import numpy as np
import pytest
from replay_world import FakeWorld

from memory import ReplayBuffer

RNG = np.random.default_rng(0)


class OneStream:
    """Feeds a buffer of one environment whose t-th frame shows the number t (from 1)."""

    def __init__(self, n_max=3, capacity=40, **options):
        self.replay = ReplayBuffer(capacity, 1, n_max, frame_shape=(1, 2), **options)
        self.time, self.stack, self.first = 0, [0, 0, 0, 0], True
        self.reset()

    def tick(self):
        self.time += 1
        return self.time

    def reset(self):
        self.stack, self.first = [0, 0, 0, self.tick()], True

    def obs(self, stack=None):
        frames = np.array(self.stack if stack is None else stack, np.uint8)
        return np.repeat(frames, 2).reshape(1, 4, 1, 2)

    def step(self, reward=0.0, end=None, action=0, task=0):
        """end: None, "life" (lost, goes on), "over" (game over) or "truncated"."""
        after = [*self.stack[1:], self.tick()]
        self.replay.add(
            self.obs(),
            [action],
            [reward],
            [end in ("life", "over")],
            [end == "truncated"],
            [self.first],
            task,
            final_obs=self.obs(after) if end == "truncated" else None,
        )
        self.stack, self.first = after, False
        if end in ("over", "truncated"):
            self.reset()

    def all(self, n_step):
        """{newest frame of obs_tm1: (rewards, steps, terminated, stack of obs_t)}"""

        class Each:
            def integers(self, low, high=None, size=None):
                return np.arange(low)

        if not len(self.replay):
            return {}
        b = self.replay.sample(len(self.replay), n_step, Each())
        return {
            int(b.obs_tm1[i, 3, 0, 0]): (
                b.rewards[i].tolist(),
                int(b.steps[i]),
                bool(b.terminated[i]),
                b.obs_t[i, :, 0, 0].tolist(),
            )
            for i in range(len(b.steps))
        }


def test_window_inside_an_episode():
    s = OneStream(n_max=3)
    for reward in (1, 2, 3, 4, 5):
        s.step(reward)
    assert s.all(3) == {
        1: ([1, 2, 3], 3, False, [1, 2, 3, 4]),
        2: ([2, 3, 4], 3, False, [2, 3, 4, 5]),
    }  # the third waits for the observation after the fifth step
    assert s.all(1) == {1: ([1], 1, False, [0, 0, 1, 2]), 2: ([2], 1, False, [0, 1, 2, 3])}


def test_game_over_ends_every_window_and_nothing_bootstraps():
    s = OneStream(n_max=3)
    s.step(1)
    s.step(2)
    s.step(3, "over")
    s.step(10)  # only now is it known that the stream is over
    assert s.all(3) == {
        1: ([1, 2, 3], 3, True, [0, 1, 2, 3]),
        2: ([2, 3, 0], 2, True, [0, 1, 2, 3]),
        3: ([3, 0, 0], 1, True, [0, 1, 2, 3]),
    }
    assert s.all(2)[1] == ([1, 2], 2, False, [0, 1, 2, 3])


def test_truncation_bootstraps_from_the_final_observation():
    s = OneStream(n_max=3)
    s.step(1)
    s.step(2, "truncated")
    assert s.all(3) == {
        1: ([1, 2, 0], 2, False, [0, 1, 2, 3]),
        2: ([2, 0, 0], 1, False, [0, 1, 2, 3]),
    }


def test_truncation_of_the_first_step():
    s = OneStream(n_max=3)
    s.step(1, "truncated")
    assert s.all(2) == {1: ([1, 0], 1, False, [0, 0, 1, 2])}


def test_lost_life_stops_the_window_but_not_the_stack():
    s = OneStream(n_max=2)
    s.step(1)
    s.step(2, "life")
    s.step(3)
    s.step(4)
    s.step(5)
    assert s.all(2) == {
        1: ([1, 2], 2, True, [0, 1, 2, 3]),
        2: ([2, 0], 1, True, [0, 1, 2, 3]),
        3: ([3, 4], 2, False, [2, 3, 4, 5]),
    }


def test_terminated_and_truncated_at_once_is_a_termination():
    s = OneStream(n_max=2)
    s.replay.add(s.obs(), [0], [7], [True], [True], [True], 0, final_obs=s.obs([0, 0, 1, 2]))
    assert s.all(2) == {1: ([7, 0], 1, True, [0, 0, 1, 2])}


def test_cut_bootstraps_from_the_last_observation():
    s = OneStream(n_max=3)
    s.step(1)
    s.step(2)
    s.replay.cut(s.obs())
    assert s.all(3) == {
        1: ([1, 2, 0], 2, False, [0, 1, 2, 3]),
        2: ([2, 0, 0], 1, False, [0, 1, 2, 3]),
    }
    s.reset()
    s.step(5, task=1)
    s.replay.cut(s.obs())
    assert s.all(3)[4] == ([5, 0, 0], 1, False, [0, 0, 4, 5])
    assert s.all(3)[2] == ([2, 0, 0], 1, False, [0, 1, 2, 3])


def test_cut_right_after_a_game_over_does_not_reach_into_the_next_game():
    s = OneStream(n_max=3)
    s.step(1)
    s.step(2, "over")
    s.replay.cut(s.obs())
    assert s.all(3) == {
        1: ([1, 2, 0], 2, True, [0, 0, 1, 2]),
        2: ([2, 0, 0], 1, True, [0, 0, 1, 2]),
    }
    s.replay.cut(s.obs())  # a second cut finds nothing to end
    assert len(s.replay) == 2


def test_reset_from_outside_drops_the_step_with_the_unseen_outcome():
    s = OneStream(n_max=3)
    s.step(1)
    s.step(2)
    s.reset()
    s.step(3)
    assert s.all(3) == {1: ([1, 0, 0], 1, False, [0, 0, 1, 2])}


def test_wrap_keeps_stacks_and_windows_whole():
    s = OneStream(n_max=3, capacity=20)
    for t in range(1, 200):
        s.step(t)
        for newest, (rewards, steps, _, obs_t) in s.all(3).items():
            assert rewards == [newest, newest + 1, newest + 2]
            assert (steps, obs_t) == (3, [newest, newest + 1, newest + 2, newest + 3])
        assert len(s.replay) == min(max(t - 3, 0), 17)  # 20, of which 3 wait
        if len(s.replay) == 17:
            assert min(s.all(1)) == t - 19


def test_initial_stack_that_is_not_blank():
    s = OneStream(n_max=1)
    s.stack = [0, 9, 0, 8]
    s.step(1)
    s.step(2)
    batch = s.replay.sample(1, 1, RNG)
    assert batch.obs_tm1[0, :, 0, 0].tolist() == [0, 9, 0, 8]
    assert batch.obs_t[0, :, 0, 0].tolist() == [9, 0, 8, 2]


def test_actions_and_tasks_come_back():
    s = OneStream(n_max=1)
    s.step(action=17, task=3)
    s.step()
    batch = s.replay.sample(4, 1, RNG)
    assert batch.action_tm1.tolist() == [17] * 4
    assert batch.task.tolist() == [3] * 4
    assert batch.weights.tolist() == [1] * 4
    kinds = " ".join(a.dtype.name for a in batch)
    assert kinds == "uint8 int64 float32 int64 bool uint8 int64 int64 float32"


def test_the_callers_batch_is_not_overwritten():
    world = FakeWorld(2, 0)
    replay = ReplayBuffer(200, 2, 1, frame_shape=(2, 3))
    for _ in range(90):
        replay.add(**world.step())
    rng = np.random.default_rng(0)
    kept, copies = [], []
    for _ in range(20):
        batch = replay.sample(8, 1, rng)
        kept.append(batch.obs_tm1[2:5])  # a view alone must keep its batch
        copies.append(kept[-1].copy())
    for view, copy in zip(kept, copies):
        np.testing.assert_array_equal(view, copy)
    del batch, kept, view
    addresses = {replay.sample(8, 1, rng).obs_tm1.ctypes.data for _ in range(20)}
    assert len(addresses) <= 8  # and what nobody holds is used again


def test_draws_are_uniform_over_what_is_valid():
    world = FakeWorld(3, 1)
    replay = ReplayBuffer(150, 3, 4, frame_shape=(2, 3))
    for _ in range(400):
        replay.add(**world.step(game_over=0.05, truncation=0.03))
    indices = replay.sample(40_000, 4, np.random.default_rng(2)).indices
    names, counts = np.unique(indices, return_counts=True)
    assert len(names) == len(replay)
    expected = 40_000 / len(replay)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    degrees = len(replay) - 1
    assert abs(chi2 - degrees) < 5 * np.sqrt(2 * degrees)


def test_shift_is_padding_by_replication_and_a_crop():
    world = FakeWorld(2, 3, shape=(9, 7))
    replay = ReplayBuffer(100, 2, 2, frame_shape=(9, 7))
    for _ in range(40):
        replay.add(**world.step(game_over=0.1))
    for shift in (1, 4, 6):
        plain = replay.sample(300, 2, np.random.default_rng(5))
        moved = replay.sample(300, 2, np.random.default_rng(5), shift=shift)
        np.testing.assert_array_equal(plain.indices, moved.indices)
        rng = np.random.default_rng(5)
        rng.integers(len(replay), size=300)
        offsets = rng.integers(-shift, shift + 1, size=(300, 4))
        assert np.unique(offsets[:, 0]).size == 2 * shift + 1
        for b, (dy, dx, ey, ex) in enumerate(offsets):
            for before, after, y, x in (
                (plain.obs_tm1[b], moved.obs_tm1[b], dy, dx),
                (plain.obs_t[b], moved.obs_t[b], ey, ex),
            ):
                padded = np.pad(before, ((0, 0), (shift, shift), (shift, shift)), "edge")
                crop = padded[:, shift + y : shift + y + 9, shift + x : shift + x + 7]
                np.testing.assert_array_equal(after, crop)


def test_shifted_sequences_move_all_frames_alike():
    world = FakeWorld(1, 3, shape=(9, 7))
    replay = ReplayBuffer(100, 1, 5, frame_shape=(9, 7))
    for _ in range(40):
        replay.add(**world.step(game_over=0.1))
    plain = replay.sample_sequences(50, 5, np.random.default_rng(5))
    moved = replay.sample_sequences(50, 5, np.random.default_rng(5), shift=2)
    rng = np.random.default_rng(5)
    rng.integers(len(replay), size=50)
    for b, (dy, dx) in enumerate(rng.integers(-2, 3, size=(50, 2))):
        padded = np.pad(plain.frames[b], ((0, 0), (2, 2), (2, 2)), "edge")
        crop = padded[:, 2 + dy : 11 + dy, 2 + dx : 9 + dx]
        np.testing.assert_array_equal(moved.frames[b], crop)


def test_restored_buffer_goes_on_alike():
    def feed(replay, world, steps):
        for _ in range(steps):
            replay.add(**world.step(0.05, 0.05, 0.1))

    world, twin = FakeWorld(2, 4), FakeWorld(2, 4)
    replay = ReplayBuffer(100, 2, 3, prioritised=True, frame_shape=(2, 3))
    feed(replay, world, 137)
    batch = replay.sample(16, 3, np.random.default_rng(0))
    replay.update_priorities(batch.indices, np.arange(16.0))
    copy = ReplayBuffer(100, 2, 3, prioritised=True, frame_shape=(2, 3))
    copy.load_state_dict(replay.state_dict())
    feed(ReplayBuffer(100, 2, 3, frame_shape=(2, 3)), twin, 137)  # brings the twin world along
    for steps in (0, 5, 90):
        feed(replay, world, steps)
        feed(copy, twin, steps)
        a, b = (r.sample(32, 2, np.random.default_rng(steps)) for r in (replay, copy))
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)


def test_a_hundred_thousand_transitions_take_less_than_800_megabytes():
    replay = ReplayBuffer(100_000, 8, 10, prioritised=True)
    arrays = [v for v in replay._ring if isinstance(v, np.ndarray)]
    assert sum(a.nbytes for a in arrays) < 0.8e9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"obs_tm1": np.zeros((1, 4, 2, 2), np.uint8)}, "shape"),
        ({"truncated": [True]}, "final_obs"),
        ({"obs_tm1": np.ones((1, 4, 1, 2), np.uint8), "first": [False]}, "continue"),
    ],
)
def test_refuses_what_does_not_belong(wrong, message):
    s = OneStream()
    s.step()
    step = {
        "obs_tm1": s.obs(),
        "action": [0],
        "reward": [0.0],
        "terminated": [False],
        "truncated": [False],
        "first": [False],
        "task": 0,
    }
    with pytest.raises(ValueError, match=message):
        s.replay.add(**(step | wrong))


def test_refuses_draws_that_cannot_be():
    s = OneStream(n_max=2)
    with pytest.raises(ValueError, match="nothing to draw"):
        s.replay.sample(1, 1, RNG)
    for _ in range(5):
        s.step()
    with pytest.raises(ValueError, match="n_step_max"):
        s.replay.sample(1, 3, RNG)
    with pytest.raises(ValueError, match="shift"):
        s.replay.sample(1, 1, RNG, shift=1)
    with pytest.raises(ValueError, match="prioritised"):
        s.replay.update_priorities(np.zeros(1, int), np.zeros(1))
    with pytest.raises(ValueError, match="too small"):
        ReplayBuffer(10, 2, 10)
