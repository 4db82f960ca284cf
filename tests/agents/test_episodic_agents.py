"""MFEC, NEC and the mixed agent: golden numbers, gradients, exact resume, bad input."""

import numpy as np
import pytest
import torch

from agents import backend as backends
from agents.agent import Transition
from agents.backend import BackendConfig
from agents.config import AgentConfig
from agents.encoders import EncoderConfig
from agents.episodic import MemoryConfig, make_agent
from agents.episodic.arbiter import Arbiter
from agents.episodic.keys import state_hashes
from agents.episodic.trails import Step, Trails, n_step_return
from errors import UserError
from memory.recall import EpisodicRead

ENVS, ACTIONS = 2, 3


def moments(keys, rewards, actions=None):
    n = len(rewards)
    zeros = np.zeros(n, np.float32)
    return Step(
        np.zeros((n, 2), np.float32),
        np.array(keys, np.int64),
        np.zeros(n, np.int64) if actions is None else np.array(actions),
        np.array(rewards, np.float32),
        np.full(n, -1),
        zeros,
        zeros,
        zeros,
    )


def test_n_step_return_by_hand():
    assert n_step_return(np.array([1.0, 2.0]), 0.5, 8.0) == 1 + 0.5 * 2 + 0.25 * 8


def test_trail_emits_at_the_horizon_and_at_the_end():
    trails, none, over = Trails(1, 2), np.array([False]), np.array([True])
    value = np.array([8.0])
    assert trails.add(moments([0], [1]), value, none, 0.5) == []
    assert trails.add(moments([1], [2]), value, none, 0.5) == []
    (first,) = trails.add(moments([2], [4]), value, none, 0.5)
    assert first.steps.hash.tolist() == [0]
    assert first.returns.tolist() == [1 + 0.5 * 2 + 0.25 * 8]
    second, rest = trails.add(moments([3], [6]), value, over, 0.5)
    assert second.returns.tolist() == [2 + 0.5 * 4 + 0.25 * 8]
    assert rest.steps.hash.tolist() == [3, 2]  # backwards
    assert rest.returns.tolist() == [6, 4 + 0.5 * 6]


def test_trails_come_back_as_they_were():
    trails, none = Trails(2, 5), np.array([False, False])
    for t in range(3):
        trails.add(moments([t, 10 + t], [t, 2]), np.zeros(2), none, 0.9)
    trails.end(1, 0.0, 0.9)
    other = Trails(2, 5)
    other.load_state_dict(trails.state_dict())
    for e in range(2):
        mine, theirs = trails.end(e, 1.0, 0.9), other.end(e, 1.0, 0.9)
        assert mine.returns.tolist() == theirs.returns.tolist()
        assert mine.steps.hash.tolist() == theirs.steps.hash.tolist()


def test_arbiter_weighs_by_error_and_takes_out_the_bias():
    arbiter = Arbiter(1, max_weight=0.9, rate=1e-3, warm_up=100)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000).astype(np.float32)
    slow = truth + rng.normal(scale=1.0, size=4000).astype(np.float32)
    fast = truth - 3 + rng.normal(scale=0.5, size=4000).astype(np.float32)
    for i in range(0, 4000, 40):
        part = slice(i, i + 40)
        arbiter.judge(0, truth[part] - 3, fast[part], slow[part], np.ones(40, np.float32))
        assert (arbiter.weight(0) > 0) == (i + 40 >= 100)
    assert arbiter.bias[0] == pytest.approx(-3, abs=0.3)
    assert arbiter.weight(0) == pytest.approx(0.8, abs=0.05)  # 1 / (1 + 0.25)
    q = arbiter.mix(0, np.zeros((1, 2)), np.array([[-2.0, 9.0]]), np.array([[1.0, 0.0]]))
    assert q[0, 1] == 0.0  # unknown to the memory
    assert q[0, 0] == pytest.approx(arbiter.weight(0) * (-2 - arbiter.bias[0]))


def test_memory_that_knows_nothing_loses_its_say():
    arbiter = Arbiter(1, max_weight=0.5, rate=1e-3, warm_up=10)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=2000)
    arbiter.judge(0, truth, rng.normal(scale=5, size=2000), truth + 0.1, np.ones(2000))
    assert arbiter.weight(0) < 0.01


def agent_of(controller, encoder=None, backend=None, agent=None, **memory):
    c = {"controller": controller, "capacity": 500, "key_dim": 8, "neighbours": 3, "horizon": 4,
             "index": "flat", "warm_up": 5, "version_every": 2, "audit_every": 5}  # fmt: skip
    if controller == "mfec":
        c |= {"horizon": 0, "gamma": 1.0, "update": "mfec", "kernel": "mean"}
    values = {
        "num_envs": ENVS,
        "learn_start": 8,
        "batch_size": 8,
        "updates_per_step": 0.5,
        "replay_capacity": 200,
        "n_step_start": 3,
        "hidden": 8,
        "epsilon_decay": 10,
        "epsilon_end": 0.1,
        "learning_rate": 1e-2,
        "reward_transform": "none" if controller != "mix" else "clip",
        "act_with_target": controller == "mix",
    }
    config = AgentConfig(**(values | (agent or {})))
    return make_agent(
        MemoryConfig(**(c | memory)),
        config,
        encoder or EncoderConfig(kind="conv"),
        np.ones((2, ACTIONS), bool),
        total_steps=100,
        seed=3,
        backend=backend,
    )


class World:
    """Random frames that repeat after a while; stacks are continuous within an episode."""

    def __init__(self, seed=0, length=6):
        self.frames = np.random.default_rng(seed).integers(0, 255, (12, 84, 84), np.uint8)
        self.t, self.length = 0, length

    def obs(self):
        e = self.t % self.length
        stack = [self.frames[max(e - 3 + i, 0)] for i in range(4)]
        return np.stack([np.stack(stack), np.stack(stack)[:, ::-1]])

    def step(self, agent):
        obs = self.obs()
        action = agent.act(obs)
        agent.learn()
        over = np.full(ENVS, self.t % self.length == self.length - 1)
        reward = (action == self.t % ACTIONS).astype(np.float32)
        first = np.full(ENVS, self.t % self.length == 0)
        agent.observe(Transition(obs, action, reward, over, np.zeros(ENVS, bool), first, None))
        self.t += 1
        return action


def play(agent, world, steps):
    return [world.step(agent).tolist() for _ in range(steps)]


def test_mfec_keeps_the_best_return_of_a_state():
    agent, world = agent_of("mfec"), World(length=3)
    seen: dict[tuple, float] = {}
    for _ in range(8):
        trail = []
        for _ in range(3):
            obs, t = world.obs(), world.t
            action = world.step(agent)
            trail.append((agent.hashes(obs), action, (action == t % ACTIONS).astype(float)))
        total = np.zeros(ENVS)
        for hashes, action, reward in reversed(trail):
            total = total + reward
            for e in range(ENVS):
                key = (int(hashes[e]), int(action[e]))
                seen[key] = max(seen.get(key, 0.0), total[e])
    assert len(agent.memory) == len(seen)
    for t in range(3):
        world.t = t
        moment = agent.look(world.obs(), 0, agent.acting_network, recall=False)
        for e in range(ENVS):
            for a in range(ACTIONS):
                key = (int(moment.hashes[e]), a)
                if key in seen:
                    assert moment.read.q[e, a] == seen[key]
                    assert moment.q[e, a] == pytest.approx(seen[key], abs=1e-4)


def test_nec_moves_encoder_keys_and_values():
    agent, world = agent_of("nec", key_rate=0.1), World()
    agent.config.__dict__["updates_per_step"] = 1e-9  # fill the memory first
    play(agent, world, 40)
    memory, network = agent.memory, agent.network
    encoder = [p.detach().clone() for p in network.encoder.parameters()]
    keys = memory._slots.keys[: len(memory)].copy()
    values = memory._slots.values[: len(memory)].copy()
    for _ in range(3):
        agent._update()
    assert not np.array_equal(keys, memory._slots.keys[: len(memory)])
    assert not np.array_equal(values, memory._slots.values[: len(memory)])
    moved = [not torch.equal(a, b) for a, b in zip(encoder, network.encoder.parameters())]
    assert all(moved)
    lengths = np.linalg.norm(memory._slots.keys[: len(memory)], axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)
    step = np.linalg.norm(memory._slots.keys[: len(memory)] - keys, axis=1).max()
    items = 3 * agent.config.batch_size  # each moves a key by at most so much
    assert 0 < step <= items * agent.memory_config.key_step


def test_nec_that_diverges_is_one_clear_error_before_anything_moves():
    agent, world = agent_of("nec"), World()
    play(agent, world, 40)
    memory = agent.memory
    memory._slots.values[: len(memory)] = np.inf
    keys = memory._slots.keys[: len(memory)].copy()
    with pytest.raises(UserError, match=r"lower agent\.learning_rate, memory\.value_rate"):
        agent._update()
    assert np.array_equal(keys, memory._slots.keys[: len(memory)])


@pytest.mark.parametrize("controller", ["nec", "mfec", "mix"])
def test_returns_count_rewards_as_configured(controller):
    rewards = np.array([3.0, -0.5], np.float32)
    for transform, seen in [("clip", [1.0, -0.5]), ("none", [3.0, -0.5])]:
        agent = agent_of(controller, agent={"reward_transform": transform})
        assert agent.reward(rewards).tolist() == seen


def test_nec_learns_the_returns_it_was_told():
    agent, world = agent_of("nec"), World()
    losses = []
    for _ in range(150):
        world.step(agent)
        if agent.last is not None:
            losses.append(float(agent.last.scalars["td"]))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])


def test_old_keys_are_encoded_anew():
    agent, world = agent_of("mix", reembed=8), World()
    play(agent, world, 60)
    assert agent.memory.version > 2
    stats = agent.memory.stats()
    assert stats["drift"] > 0
    assert stats["stale"] < 1
    still = agent_of("mix", reembed=0)
    play(still, World(), 60)
    assert still.memory.stats()["stale"] > stats["stale"]


@pytest.mark.parametrize(
    "values", [{}, {"act_with_target": False}, {"bootstrap": "online"}, {"shift": 4}]
)
def test_learning_batches_give_entries_the_keys_of_the_day(values):
    agent, world = agent_of("mix", refresh=1, agent=values), World()
    agent.config.__dict__["target_period"] = 10**9  # the encoder that acts stands still
    if not agent.config.act_with_target:
        agent.learner.optimiser.step = lambda: None
    play(agent, world, 40)
    memory = agent.memory
    if not agent.config.act_with_target:
        with torch.no_grad():
            agent.network.encoder.layers[0].weight.mul_(0.5)
    before = memory._slots.keys[: len(memory)].copy()
    agent._update()
    changed = np.flatnonzero((before != memory._slots.keys[: len(memory)]).any(1))
    assert len(changed)  # the running mean alone has moved old keys
    obs, there = agent.replay.observations(memory.moments(changed).refs)
    assert there.all()
    assert np.allclose(memory._slots.keys[changed], agent.keys_of(obs), atol=1e-5)
    assert (memory.moments(changed).versions == memory.version).all()


def test_on_the_core_a_moment_is_asked_for_as_it_was_stored():
    """Random actions, refreshed keys and cut episodes too: with one synapse a weight the core's
    latents are far from PyTorch's."""
    backend = BackendConfig(name="event_core", synapses=1, every=10**6)
    agent = agent_of("mix", EncoderConfig(), backend, refresh=1)
    agent.config.__dict__["target_period"] = 10**9  # the encoder that acts stands still
    world = World()
    play(agent, world, 40)
    agent.cut(world.obs())
    trust = []
    for t in range(world.length):
        world.t = t
        moment = agent.look(world.obs(), 0, agent.deciding_network(), recall=False)
        trust.append(moment.read.action_confidence[moment.read.hits])
    assert np.concatenate(trust).min() > 0.7  # .07 where one encoder writes and another asks
    agent.act(world.obs())
    acted_on = agent.latent.clone()
    agent._update()
    assert torch.equal(agent.latent, acted_on)  # a change of game is told by it afterwards


def test_keys_refreshed_on_the_core_take_no_program_of_their_own(monkeypatch):
    compiled = []
    real = backends.recompile
    monkeypatch.setattr(backends, "recompile", lambda *a: compiled.append(1) or real(*a))
    backend = BackendConfig(name="event_core", every=20)
    agent = agent_of("mix", EncoderConfig(), backend, refresh=1, reembed=4)
    play(agent, World(), 60)
    assert len(compiled) == agent.learner.updates // 20
    obs = World().obs()
    before = agent.backend.encoder.decisions
    keys = agent.keys_of(obs)
    assert agent.backend.encoder.decisions == before
    found = agent.look(obs, 0, agent.deciding_network(), recall=False)
    assert np.array_equal(keys, found.keys)


def test_names_of_later_observations():
    agent, world = agent_of("mix"), World()
    play(agent, world, 30)
    batch = agent.replay.sample(32, 3, np.random.default_rng(0))
    open_ended = ~batch.terminated
    names = agent.replay.names_after(batch.indices, batch.steps)[open_ended]
    obs, there = agent.replay.observations(names)
    assert open_ended.any()
    assert there.all()
    assert np.array_equal(obs, batch.obs_t[open_ended])


def test_old_game_is_asked_again():
    agent, world = agent_of("mfec"), World()
    play(agent, world, 60)
    assert not any("kept" in name for name in agent.diagnostics())
    agent.end_task(world.obs())
    agent.begin_task(1)
    numbers = agent.diagnostics()
    assert numbers["memory/kept/0"] == 1.0
    worth = numbers["memory/error/0"]
    agent.memory.load_state_dict(agent_of("mfec").memory.state_dict())  # all forgotten
    assert agent.diagnostics()["memory/kept/0"] == 0.0
    assert agent.diagnostics()["memory/error/0"] > worth


@pytest.mark.parametrize("controller", ["mix", "nec", "mfec"])
def test_restored_agent_goes_on_the_same(controller, tmp_path):
    from training.checkpoint import CheckpointStore

    agent, world = agent_of(controller), World()
    play(agent, world, 25)
    agent.end_task(world.obs())
    agent.begin_task(1)
    world.t = 0
    play(agent, world, 20)
    store = CheckpointStore(tmp_path, 1)
    state = {"agent": agent.state_dict(), "replay": agent.replay.state_dict()}
    store.save(1, state | {"memory": agent.memory_state()})
    loaded = store.load()
    other, later = agent_of(controller), World()
    later.t = world.t
    other.load_state_dict(loaded["agent"])
    other.replay.load_state_dict(loaded["replay"])
    other.load_memory_state(loaded["memory"])
    assert play(agent, world, 25) == play(other, later, 25)
    mine, theirs = agent.diagnostics(), other.diagnostics()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert np.array_equal(value, theirs[name], equal_nan=True), name
    assert "memory/kept/0" in mine


def test_evaluation_leaves_no_trace():
    agent, twin, world, other = agent_of("mix"), agent_of("mix"), World(), World()
    play(agent, world, 20)
    play(twin, other, 20)
    for _ in range(3):
        agent.eval_policy(world.obs(), 1)
    assert play(agent, world, 20) == play(twin, other, 20)
    assert np.array_equal(agent.memory._slots.ticks, twin.memory._slots.ticks)


def test_recall_shows_frames_of_the_moments():
    agent, world = agent_of("mfec"), World()
    play(agent, world, 30)
    (recall, _) = agent.recalls(world.obs(), 0)
    assert recall.frames
    assert any(f is not None and (world.frames == f).all((1, 2)).any() for f in recall.frames)
    figures = agent.figures(("pong", "krull"))
    assert set(figures) == {"memory/recall"}
    captions = [axes.get_title() for axes in figures["memory/recall"].axes]
    assert any(caption.startswith("pong: ") for caption in captions), captions


def test_an_imagined_moment_reminds_of_the_nearest_one():
    """Weights add up to 1 for each action: a far entry that is its action's only one has all."""
    agent, world = agent_of("mix"), World()
    play(agent, world, 30)
    far, near = 0, 2
    frames, there = agent.replay.observations(agent.memory.moments([far, near]).refs)
    assert there.all()
    assert (frames[0, -1] != frames[1, -1]).any()
    indices = np.array([[[far, -1, -1], [near, 4, -1], [-1, -1, -1]]])
    distances = np.array([[[0.9, np.inf, np.inf], [0.1, 0.2, np.inf], [np.inf] * 3]], np.float32)
    weights = np.array([[[1, 0, 0], [0.7, 0.3, 0], [0, 0, 0]]], np.float32)
    none, latent = np.zeros((1, ACTIONS)), torch.zeros(1, agent.network.encoder.latent_dim)
    read = EpisodicRead(none, none[0, :1], indices, weights, distances, none, none > 0)
    agent.memory.read = lambda *args, **kwargs: read
    (frame,) = agent.reminded(latent, 0)
    assert np.array_equal(frame, frames[1, -1])
    nothing = np.full_like(indices, -1), np.zeros_like(weights), np.full_like(distances, np.inf)
    read = read._replace(indices=nothing[0], weights=nothing[1], distances=nothing[2])
    assert agent.reminded(latent, 0) == [None]


@pytest.mark.parametrize("controller", ["mix", "mfec", "nec"])
def test_only_a_games_own_moments_answer(controller):
    agent, world = agent_of(controller), World()
    agent.begin_task(1)
    play(agent, world, 30)
    obs = world.obs()
    assert agent.look(obs, 1, agent.acting_network).read.confidence.all()
    strange = agent.look(obs, 0, agent.acting_network).read  # nothing of this game is stored
    assert not strange.confidence.any()
    assert (strange.indices < 0).all()
    agent.end_task(obs)
    agent.begin_task(0)
    play(agent, world, 30)
    for game in (0, 1):
        found = agent.look(obs, game, agent.acting_network).read.indices
        assert set(agent.memory.moments(found[found >= 0]).tasks) == {game}


def test_imagined_values_of_a_game_with_fewer_actions():
    agent, world = agent_of("mix", warm_up=1, reach=1.0), World()
    play(agent, world, 40)
    latent = torch.rand(5, agent.network.encoder.latent_dim)
    full = agent.values(latent, 0)
    assert agent.arbiter.weight(0) > 0
    assert not torch.equal(full, agent.values(latent, 0, memory=False))
    agent.masks[0, -1] = False
    fewer = agent.values(latent, 0)
    assert torch.equal(fewer[:, :-1], full[:, :-1])
    assert torch.isneginf(fewer[:, -1]).all()


def test_recalls_are_of_the_actions_that_were_taken():
    agent, world = agent_of("mfec"), World()
    play(agent, world, 60)
    taken = np.array([2, 1])
    recalls = agent.recalls(world.obs(), 0, actions=taken)
    assert [r.action for r in recalls] == taken.tolist()
    for recall in recalls:
        assert (recall.known.actions == recall.action).all()


def test_hashes_tell_states_apart_by_a_single_pixel():
    obs = np.zeros((2, 4, 84, 84), np.uint8)
    assert len(set(state_hashes(obs).tolist())) == 1
    obs[1, 0, 3, 4] = 1
    assert len(set(state_hashes(obs).tolist())) == 2


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"controller": "dnd"}, "memory.controller"),
        ({"controller": "nec", "kernel": "mean"}, "memory.kernel"),
        ({"neighbours": 0}, "memory.neighbours"),
        ({"alpha": 0.0}, "memory.alpha"),
        ({"index": "faiss"}, "memory.index"),
        ({"refresh": -1}, "memory.refresh"),
        ({"controller": "mfec", "horizon": 50}, "memory.horizon=0"),
    ],
)
def test_bad_values_are_named(values, word):
    with pytest.raises(UserError, match=word):
        MemoryConfig(**values)


def test_keys_that_are_no_numbers_are_one_clear_error():
    for controller in ("mix", "nec"):
        agent, world = agent_of(controller), World()
        play(agent, world, 30)
        with torch.no_grad():
            for parameter in agent.acting_network.parameters():
                parameter.fill_(torch.nan)
        with pytest.raises(UserError, match=r"lower agent\.learning_rate"):
            agent.look(world.obs(), 0, agent.acting_network)


def test_values_that_are_no_numbers_are_one_clear_error():
    """The head breaks between two updates; the encoder, and so the keys, are still whole."""
    agent = agent_of("mix", agent={"learn_start": 1000, "batch_size": 1000,
                                   "replay_capacity": 2000})  # fmt: skip
    world = World()
    play(agent, world, 3)
    with torch.no_grad():
        for parameter in agent.learner.target.head.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match=r"values of the episodic memory.*learning_rate"):
        play(agent, world, 9)


def test_a_state_of_another_device_loads():
    agent, world = agent_of("mix"), World()
    play(agent, world, 20)
    state = agent.state_dict()
    state["noise"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU's generator has it
    other = agent_of("mix")
    other.load_state_dict(state)
    assert other.steps == agent.steps
