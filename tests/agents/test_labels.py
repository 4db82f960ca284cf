"""Agents that are not told the game: the detector, their own contexts, and what goes by them."""

import numpy as np
import pytest
import torch

from agents.agent import Agent, Transition
from agents.change import ChangeConfig, ChangeDetector, Usual, screen
from agents.config import AgentConfig
from agents.continual import ContinualConfig, ReplayConfig
from agents.encoders import EncoderConfig
from agents.episodic import MemoryConfig, make_agent
from memory.episodic import EpisodicMemory

N, A = 4, 18


def frame(kind: int, t: int) -> np.ndarray:
    """uint8 [N, 84, 84]: a background by kind, flicker, and a bright block that wanders."""
    out = np.random.default_rng([kind, t]).integers(0, 3, (N, 84, 84), dtype=np.uint8)
    out += np.uint8((30, 160, 90)[kind])
    for e in range(N):
        y, x = 7 * (t + 3 * e) % 70, 11 * (t // 9 + e) % 70
        out[e, y : y + 12, x : x + 12] = 255
    return out


def world(kind: int, t: int) -> np.ndarray:
    """Observations uint8 [N, 4, 84, 84] at vector step t."""
    return np.stack([frame(kind, max(t - k, 0)) for k in (3, 2, 1, 0)], 1)


def test_screen_is_the_mean_of_each_block():
    obs = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8)
    blocks = screen(obs).reshape(3, 12, 12)
    assert blocks[1, 2, 5] == pytest.approx(obs[1, -1, 14:21, 35:42].mean())
    assert blocks[2, 11, 0] == pytest.approx(obs[2, -1, 77:84, 0:7].mean())


def test_detector_fires_at_the_change_and_nowhere_else():
    detector, alarms = ChangeDetector(ChangeConfig(signal="screen")), []
    detector.begin(Usual("screen", 1000))
    for t in range(600):
        if detector.see({"screen": screen(world(t // 200, t))}, np.full(N, t % 200 == 0)):
            alarms.append(t)
            detector.begin(Usual("screen", 1000))
    assert len(alarms) == 2
    assert 200 <= alarms[0] < 206
    assert 400 <= alarms[1] < 406


def test_what_is_new_within_an_episode_is_no_change_of_game():
    for begun, alarms in ((0, 0), (240, 0), (290, 1), (300, 1), (303, 1)):
        detector = ChangeDetector(ChangeConfig(signal="screen"))
        detector.begin(Usual("screen", 1000))
        found = 0
        for t in range(400):
            first = np.full(N, t == 0)
            first[: N - 1] |= t % 7 == 0  # all but the last begin again and again
            first[N - 1] |= t == begun
            if detector.see({"screen": screen(world(int(t >= 300), t))}, first):
                detector.begin(Usual("screen", 1000))
                found += 1
        assert found == alarms, begun
        # what was no change has been learned
        assert detector.usual["screen"].log_distances(screen(world(1, 400))).max() < 1


def test_slow_drift_is_no_change():
    detector = ChangeDetector(ChangeConfig(signal="screen"))
    detector.begin(Usual("screen", 100))
    rng = np.random.default_rng(3)
    for t in range(600):  # as far in all as from one standard deviation to sixty
        signals = rng.normal(0.1 * t, 1, (N, 144)) * 10
        assert not detector.see({"screen": signals}, np.full(N, t % 40 == 0))


def test_one_environment_alone_in_a_new_level_is_no_change_of_game():
    detector = ChangeDetector(ChangeConfig(signal="screen"))
    detector.begin(Usual("screen", 1000))
    for t in range(600):
        obs = world(0, t)
        if t >= 300:
            obs[t // 60 % N] = world(1, t)[0]  # now this one, now that
        assert not detector.see({"screen": screen(obs)}, np.full(N, t % 40 == 0))


def test_both_signals_must_find_it_unusual():
    rng = np.random.default_rng(9)
    for moved, alarm in (("screen",), False), (("spikes",), False), (("screen", "spikes"), True):
        detector = ChangeDetector(ChangeConfig(signal="both"))
        detector.begin(Usual("screen", 1000))
        steps = range(120)
        fired = [
            detector.see(
                {
                    kind: scale * (rng.normal(size=(N, 20)) + 8 * (t >= 100 and kind in moved))
                    for kind, scale in (("screen", 30.0), ("spikes", 1.0))
                },
                np.full(N, t % 50 == 0),
            )
            for t in steps
        ]
        assert any(fired) == alarm
        assert not any(fired[:100])


def make(labels: str, **changes) -> Agent:
    config = AgentConfig(
        hidden=16, batch_size=8, learn_start=16, updates_per_step=0.25, replay_capacity=1200,
        epsilon_decay=40,
    )  # fmt: skip
    return Agent(
        config, EncoderConfig(), np.ones((5, A), bool), 10_000, 3,
        continual=ContinualConfig(
            replay=ReplayConfig("fifo_and_reservoir", clone_policy=1.0, clone_value=1.0)
        ),
        task_labels=labels, change=ChangeConfig(warm_up=20, **changes),
    )  # fmt: skip


def play(agent: Agent, kind: int, steps: int, begin: int = 0) -> list:
    """Acts and learns; [step, context] of each alarm."""
    alarms = []
    for t in range(begin, begin + steps):
        obs = world(kind, t)
        action = agent.act(obs)
        agent.learn()
        flags = np.zeros(N, bool)
        first = flags | (t == begin)
        agent.observe(Transition(obs, action, np.ones(N, np.float32), flags, flags, first, None))
        alarms += [[t, e["context"]] for e in agent.contexts.events()]
    return alarms


def test_spikes_that_move_alone_do_not_leave_the_context():
    agent = make("none", signal="spikes")
    agent.begin_task(0)
    play(agent, 0, 60)
    left, spikes = [], agent.contexts._spikes
    agent.leave = lambda: left.append(1)
    agent.contexts._spikes = lambda obs: spikes(obs) + 100.0
    assert not play(agent, 0, 40, 60)
    assert not left
    assert (agent.game, agent.contexts.alarms) == (0, 0)


@pytest.mark.parametrize(("recognise", "again"), [(True, 0), (False, 2)])
def test_boundaries_are_numbered_whatever_the_game_is_called(recognise, again):
    agent = make("boundaries", recognise=recognise)
    for visit, (game, context) in enumerate(((2, 0), (0, 1), (2, again))):
        agent.begin_task(game)
        play(agent, game, 12, 12 * visit)
        assert agent.game == context
        assert agent.game_steps[context] == (96 if (visit, again) == (2, 0) else 48)
        agent.end_task(world(game, 12 * visit + 12))
    labels = np.unique(agent.replay.sample(64, 1, np.random.default_rng(4)).task)
    assert set(labels) == {0, 1, again}
    assert agent.continual.left


def test_without_labels_a_change_opens_a_context_and_keeps_the_old_network():
    agent = make("none", signal="screen")
    agent.begin_task(1)
    assert play(agent, 0, 60) == []
    agent.end_task(world(0, 60))  # heard as the end of episodes, not as a change
    assert not agent.continual.left
    agent.begin_task(0)
    assert agent.game == 0
    ((step, context),) = play(agent, 1, 40, 60)
    assert step < 75
    assert context == agent.game == 1
    assert agent.continual.left
    assert agent.game_steps[1] == 4 * (100 - step)
    agent.end_task(world(1, 100))
    rng = np.random.default_rng(5)
    for replay in (agent.replay.fifo, agent.replay.reservoir):
        batch = replay.sample(256, 1, rng)
        shows = batch.obs_tm1[:, -1].mean((1, 2)) > 100  # the second game is the brighter one
        assert set(shows) == {False, True}
        assert (batch.task == shows).all()  # those before the alarm among them


def test_told_nothing_it_learns_as_one_that_is_told():
    """Where each change is noticed at once, labels make no difference anywhere."""
    config = AgentConfig(
        hidden=16, batch_size=8, learn_start=16, updates_per_step=0.25, replay_capacity=1200,
        epsilon_start=0.05, epsilon_end=0.05, epsilon_spread=1,
    )  # fmt: skip
    kept = ContinualConfig(
        replay=ReplayConfig("fifo_and_reservoir", clone_policy=1.0, clone_value=1.0)
    )
    memory = MemoryConfig("mix", capacity=500, key_dim=8, horizon=5, warm_up=50)
    told, untold = (
        make_agent(
            memory, config, EncoderConfig(), np.ones((games, A), bool), 10_000, 3, continual=kept,
            task_labels=labels,
        )
        for games, labels in ((2, "oracle"), (5, "none"))
    )  # fmt: skip
    untold.contexts.detector.see = lambda signals, first: first.all() and untold.steps > 0
    untold.contexts._context_of = lambda blocks: visit % 2
    flags, pay = np.zeros(N, bool), np.random.default_rng(0)
    for visit in range(4):
        for agent in (told, untold):
            agent.begin_task(visit % 2)
        for t in range(50 * visit, 50 * visit + 50):
            obs, reward = world(visit % 2, t), pay.integers(0, 2, N).astype(np.float32)
            first = flags | (t == 50 * visit)
            for agent in (told, untold):
                # It has acted by the time it sees that the game is another: not what is compared.
                before, agent.game = agent.game, visit % 2
                action = agent.act(obs)
                agent.game = before
                agent.observe(Transition(obs, action, reward, flags, flags, first, None))
                agent.learn()
        for agent in (told, untold):
            agent.end_task(world(visit % 2, 50 * visit + 50))
    assert untold.contexts.alarms == 3
    assert min(untold.arbiter.weight(game) for game in (0, 1)) > 0  # remembered values have a say
    assert untold.memory.stats()["evicted"] > 0
    assert told.game_steps == untold.game_steps[:2] == [400, 400]
    for of in ("network", "acting_network"):
        weights = (getattr(agent, of).state_dict().values() for agent in (told, untold))
        assert all(torch.equal(a, b) for a, b in zip(*weights))
    rng = (np.random.default_rng(1) for _ in range(2))
    batches = (agent.replay.sample(256, 3, r) for agent, r in zip((told, untold), rng))
    for a, b in zip(*batches):
        np.testing.assert_array_equal(a, b)
    for task in range(2):
        slots = told.memory.slots_of(task)
        np.testing.assert_array_equal(slots, untold.memory.slots_of(task))
        moments = (agent.memory.moments(slots) for agent in (told, untold))
        for a, b in zip(*moments):
            np.testing.assert_array_equal(a, b)


def test_memory_divides_its_shares_among_the_contexts_in_use():
    memory = EpisodicMemory(120, 4, 2, 3, tasks=10)
    rng = np.random.default_rng(6)

    def write(task: int, count: int) -> None:
        keys = rng.normal(size=(count, 4)).astype(np.float32)
        hashes = rng.integers(1, 2**62, count)
        memory.write(keys, np.zeros(count, np.int64), np.ones(count, np.float32), hashes, task)

    memory.share_among(1)
    write(0, 200)
    assert len(memory.slots_of(0)) == 120
    memory.share_among(3)
    write(1, 200)
    assert len(memory.slots_of(1)) == 40
    assert len(memory.slots_of(0)) == 80
    with pytest.raises(ValueError, match="11 of the memory's 10"):
        memory.share_among(11)


def test_evaluation_is_judged_by_the_context_that_looks_like_it():
    agent = make("none", signal="screen")
    agent.begin_task(0)
    play(agent, 0, 40)
    play(agent, 1, 40, 40)
    assert agent.game == 1
    before = agent.contexts.state_dict()
    assert [agent.label(world(kind, 7), game=1) for kind in (0, 1)] == [0, 1]
    both = np.concatenate([world(0, 7), world(1, 7)])
    assert agent.labels(both, game=1).tolist() == [0] * (len(both) // 2) + [1] * (len(both) // 2)
    mixed = np.concatenate([world(0, 3), np.zeros_like(world(0, 3))])  # not begun yet: black
    agent.greedy = lambda obs, label, network: np.full(len(obs), label)
    assert agent.eval_policy(mixed, game=1)[: len(mixed) // 2].tolist() == [0] * (len(mixed) // 2)
    agent.label_values = lambda obs, label: torch.full((len(obs), 2), float(label))
    values = agent.eval_values(both, game=1)  # what a film shows and an oracle goes by
    assert values[:, 0].tolist() == agent.labels(both, game=1).tolist()
    assert agent.game == 1
    np.testing.assert_equal(agent.contexts.state_dict(), before)


@pytest.mark.parametrize("signal", ["screen", "spikes", "both"])
def test_contexts_go_on_from_their_state(signal):
    rng, agents = np.random.default_rng(8), [make("none", signal=signal) for _ in range(2)]
    dictionary = rng.normal(size=(3, 8))

    def step(contexts, kind: int, t: int) -> None:
        """The spikes are replaced by a game's own pattern: an untrained encoder fires little."""
        contexts._spikes = lambda obs: (
            dictionary[kind] + 0.1 * np.sin(t + np.arange(32)).reshape(N, 8)
        )
        contexts.see(world(kind, t), np.full(N, t in (0, 30, 85)))

    first, second = (agent.contexts for agent in agents)
    first.begin_task()
    for t in range(60):
        step(first, t // 30, t)
    first.events()
    agents[1].game = agents[0].game
    second.load_state_dict(first.state_dict())
    for t in range(60, 110):
        kind = 0 if t < 85 else 2
        step(first, kind, t)
        step(second, kind, t)
    entered = [[e["context"] for e in contexts.events()] for contexts in (first, second)]
    assert entered == [[0, 2], [0, 2]]
    np.testing.assert_equal(first.state_dict(), second.state_dict())
