"""The world model: learns a small world exactly, ignores what was never seen, moves the encoder."""

import copy

import numpy as np
import pytest
import torch

from agents import losses
from agents.agent import Agent, Transition
from agents.config import AgentConfig
from agents.encoders import EncoderConfig
from agents.world_model import Unroll, WorldModel, WorldModelConfig, make_unroll
from errors import UserError
from memory import ArrayPool, ReplayBuffer
from memory.reservoir import ReservoirReplay, shift_frames
from tests.agents.test_learner import ACTIONS, bandit, make
from tests.memory.test_reservoir import SHAPE, fill

RING = 6  # places; action 0 stays, 1 and 2 go round; place 0 pays 1, leaving it backwards ends


def ring_world(count, length, generator):
    place = torch.randint(RING, (count,), generator=generator)
    action = torch.randint(3, (count, length), generator=generator)
    latents, reward, over = [place], [], []
    for k in range(length):
        over.append((place == 0) & (action[:, k] == 2))
        place = (place + torch.tensor([0, 1, -1])[action[:, k]]) % RING
        reward.append((place == 0).float() - (place == 3).float())
        latents.append(place)
    one_hot = torch.nn.functional.one_hot(torch.stack(latents, 1), RING).float()
    return one_hot, action, torch.stack(reward, 1), torch.stack(over, 1)


def test_a_small_world_is_learned_five_steps_deep():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = WorldModel(RING, 3, 8, WorldModelConfig(True, hidden=64))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(600):
        latent, action, reward, over = ring_world(64, 5, generator)
        made, logits = model.unroll(latent[:, 0], action)
        latent, reward, over = (x.transpose(0, 1) for x in (latent, reward, over))
        counts = torch.ones_like(over)
        loss = losses.reward_classes(logits[..., :3], reward, counts)
        loss = loss + losses.termination(logits[..., 3], over, counts)
        loss = loss + ((made - latent[1:]) ** 2).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    latent, action, reward, over = ring_world(500, 5, generator)
    node = latent[:, 0]
    for k in range(5):
        step = model.step(node, action[:, k])
        node = step.latent
        assert (step.reward - reward[:, k]).abs().mean() < 0.1
        assert ((step.discount < 0.5) == over[:, k]).float().mean() > 0.98
        assert (node.argmax(1) == latent[:, k + 1].argmax(1)).float().mean() > 0.98
    shuffled = model.step(latent[:, 0], (action[:, 0] + 1) % 3)
    assert (shuffled.latent.argmax(1) == latent[:, 1].argmax(1)).float().mean() < 0.5


def test_unroll_and_its_gradient_are_those_of_single_steps():
    torch.manual_seed(0)
    model = WorldModel(6, 3, 8, WorldModelConfig(True, hidden=5, gradient_scale=0.5)).double()
    start, action = torch.randn(4, 6, dtype=torch.float64), torch.randint(3, (4, 5))

    def stepwise(latent):
        latents, outcomes = [], []
        for k in range(5):
            latent, outcome = model.transition(latent, action[:, k])
            latents.append(latent)
            outcomes.append(outcome)
            latent = 0.5 * latent + 0.5 * latent.detach()
        return torch.stack(latents), torch.stack(outcomes)

    grads, weights = [], [torch.randn(5, 4, 6).double(), torch.randn(5, 4, 4).double()]
    for unroll in (stepwise, lambda x: model.unroll(x, action)):
        latent = start.clone().requires_grad_()
        made = unroll(latent)
        total = sum((x**2 * w).sum() for x, w in zip(made, weights))
        wanted = [latent, *(p for n, p in model.named_parameters() if "predictor" not in n)]
        grads.append([*made, *torch.autograd.grad(total, wanted)])
    for by_steps, at_once in zip(*grads):
        torch.testing.assert_close(at_once, by_steps)


def inputs(rows=8, steps=3):
    generator = torch.Generator().manual_seed(1)
    terminated = torch.zeros(rows, 5, dtype=torch.bool)
    terminated[:, steps - 1] = True
    return Unroll(
        torch.randint(ACTIONS, (rows, 5), generator=generator),
        torch.randint(-1, 2, (rows, 5), generator=generator).float(),
        terminated,
        torch.full((rows,), steps),
        torch.tensor([1, 4]).repeat(rows, 1),
        torch.randint(255, (rows, 2, 4, 84, 84), generator=generator).to(torch.uint8),
    )


def loss_of(learner, real, **values):
    config = WorldModelConfig(True, **values)
    model = WorldModel(8, ACTIONS, learner.network.head.hidden_width, config)
    rows = len(real.steps)
    latent = torch.linspace(0.5, 1, rows)[:, None].repeat(1, 8).requires_grad_()  # no two alike
    mask = torch.ones(len(real.steps), ACTIONS, dtype=torch.bool)
    gamma = torch.tensor(0.99)
    return model, latent, model.loss(learner.network, learner.target, latent, real, mask, gamma)


def test_what_follows_an_end_does_not_count():
    learner, real = make(), inputs()
    torch.manual_seed(0)
    _, _, before = loss_of(learner, real)
    other = real._replace(
        obs=torch.cat([real.obs[:, :1], 255 - real.obs[:, 1:]], 1),  # four steps on: never seen
        reward=torch.cat([real.reward[:, :3], -real.reward[:, 3:]], 1),
    )
    torch.manual_seed(0)
    _, _, after = loss_of(learner, other)
    assert before.keys() == {
        "reward", "termination", "self_prediction", "imagined_value", "advantage"
    }  # fmt: skip
    for name, loss in before.items():
        assert torch.equal(loss, after[name]), name
    torch.manual_seed(0)
    _, _, seen = loss_of(learner, real._replace(obs=255 - real.obs))
    assert not torch.equal(before["self_prediction"], seen["self_prediction"])


def test_every_loss_reaches_latent_and_model():
    learner, real = make(), inputs(steps=5)
    for name in ("reward", "termination", "self_prediction", "imagined_value"):
        model, latent, parts = loss_of(learner, real)
        (grad,) = torch.autograd.grad(parts[name], latent, retain_graph=True)
        assert grad.abs().sum() > 0, name
        parts[name].backward()
        assert model.action.weight.grad.abs().sum() > 0, name


def test_the_loss_of_actions_not_taken_teaches_the_model_alone():
    learner, real = make(), inputs(steps=5)
    model, latent, parts = loss_of(learner, real, advantage=1.0)
    learner.network.zero_grad(set_to_none=True)
    parts["advantage"].backward()
    assert model.action.weight.grad.abs().sum(1).min() > 0  # every action
    assert latent.grad is None
    assert all(p.grad is None for p in learner.network.parameters())


def test_the_loss_of_actions_not_taken_looks_at_few_moments_of_all_parts_of_a_batch(monkeypatch):
    learner, real = make(), inputs(steps=5)
    seen = []
    plain = WorldModel.backed_up

    def backed_up(self, target, latent, mask, gamma):
        seen.append(latent)
        return plain(self, target, latent, mask, gamma)

    monkeypatch.setattr(WorldModel, "backed_up", backed_up)
    _, latent, _ = loss_of(learner, real, advantage=1.0, advantage_rows=4)
    rows = len(latent)
    assert len(seen[0]) == 4
    assert torch.equal(seen[0][:2], latent[[0, rows // 2]])
    loss_of(learner, real, advantage=1.0, advantage_rows=10 * rows)
    assert len(seen[1]) == rows + real.depth.numel()


def test_one_step_values_come_to_tell_actions_apart_as_q_does():
    torch.manual_seed(0)
    learner = make()
    target, gamma = learner.target, torch.tensor(0.99)
    model = WorldModel(8, ACTIONS, target.head.hidden_width, WorldModelConfig(True, hidden=32))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    mask = torch.tensor([True] * (ACTIONS - 1) + [False]).expand(64, -1)
    there = torch.ones(64, dtype=torch.bool)
    apart = []
    for _ in range(300):
        latent = torch.rand(64, 8)
        q = target.q_values(target.head(latent)).detach()
        made = model.backed_up(target, latent, mask, gamma)
        apart.append(losses.advantages(made, q, mask, there))
        optimiser.zero_grad()
        apart[-1].backward()
        optimiser.step()
    assert apart[0] > 0.5
    assert apart[-1] < 0.2
    step = model.step(latent, torch.full((64,), 1))
    value = target.q_values(target.head(step.latent))[:, :-1].amax(1)
    made = model.backed_up(target, latent, mask, gamma)
    torch.testing.assert_close(made[:, 1], step.reward + 0.99 * step.discount * value)


def test_advantages_by_hand():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    there = torch.ones(2, dtype=torch.bool)
    wanted = torch.tensor([[1.0, 3.0, -torch.inf], [0.0, 3.0, 0.0]])  # centred: -1 1; -1 2 -1
    assert losses.advantages(wanted + 5, wanted, mask, there) == pytest.approx(0, abs=1e-6)
    assert losses.advantages(torch.zeros(2, 3), wanted, mask, there) == pytest.approx(1)
    made = torch.tensor([[1.0, 1.0, 7.0], [0.0, 3.0, 0.0]])  # only the first row is off: 2 of 8
    assert losses.advantages(made, wanted, mask, there) == pytest.approx(2 / 8)
    assert losses.advantages(made, wanted, mask, torch.tensor([False, True])) == 0


def test_values_agree_for_equal_logits_alone():
    logits = torch.randn(4, 3, 5)
    mask, there = torch.ones(4, 3, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    assert losses.imagined_value(logits, logits + 1, mask, there) == pytest.approx(0, abs=1e-6)
    assert losses.imagined_value(logits, -logits, mask, there) > 0.1
    assert losses.imagined_value(logits, -logits, mask, ~there) == 0


def test_window_of_a_sequence_is_what_sample_gives():
    buffer = ReplayBuffer(400, 2, 6, frame_shape=SHAPE)
    fill([buffer], 150)
    for n in (1, 3, 6):
        plain = buffer.sample(64, n, np.random.default_rng(3))
        window = buffer.sample_sequences(64, 6, np.random.default_rng(3)).window(n, ArrayPool())
        for name in ("obs_tm1", "action_tm1", "rewards", "steps", "terminated", "task", "indices"):
            assert (getattr(plain, name) == getattr(window, name)).all(), name
        on = ~plain.terminated
        assert (plain.obs_t[on] == window.obs_t[on]).all()


def test_sequences_of_the_reservoir_hold_what_was_seen():
    buffer = ReservoirReplay(400, 2, 5, frame_shape=SHAPE, length=8)
    fill([buffer], 120)
    batch = buffer.sample_sequences(256, 5, np.random.default_rng(0))
    t = batch.action[:, 0]
    for k in range(5):
        on = k < batch.steps
        assert (batch.action[on, k] == t[on] + k).all()
        assert (batch.rewards[on, k] == t[on] + k).all()
        assert (batch.rewards[~on, k] == 0).all()
        seen = on & ~batch.terminated[:, k]
        assert (batch.frames[seen, 4 + k, 0, 0] == (t[seen] + k + 1) % 251 + 1).all()
    ends = batch.terminated.argmax(1)[batch.terminated.any(1)]
    assert (ends + 1 == batch.steps[batch.terminated.any(1)]).all()
    assert len(ends)
    assert (batch.frames[:, 3, 0, 0] == t % 251 + 1).all()


def test_shifted_frames_move_alike():
    frames = np.arange(2 * 5 * 4 * 4).reshape(2, 5, 4, 4)
    moved = shift_frames(frames, np.array([[1, 0], [0, -1]]))
    assert (moved[0, :, :3] == frames[0, :, 1:]).all()
    assert (moved[0, :, 3] == frames[0, :, 3]).all()
    assert (moved[1, :, :, 1:] == frames[1, :, :, :3]).all()
    assert (moved[1, :, :, 0] == frames[1, :, :, 0]).all()


def test_unroll_draws_its_depths():
    buffer = ReplayBuffer(400, 2, 6, frame_shape=SHAPE)
    fill([buffer], 150)
    batch = buffer.sample_sequences(8, 6, np.random.default_rng(3))
    seen = set()
    for seed in range(40):
        action, _, _, steps, depth, obs = make_unroll(
            batch, 5, 2, np.random.default_rng(seed), ArrayPool()
        )
        assert action.shape == (8, 5)
        assert steps.max() <= 5
        assert (depth[:, 0] != depth[:, 1]).all()
        assert (obs[:, 1] == batch.obs()[np.arange(8), depth[:, 1]]).all()
        seen |= set(depth.flatten().tolist())
    assert seen == {1, 2, 3, 4, 5}


def an_agent(model: WorldModelConfig, games: int = 1) -> Agent:
    config = AgentConfig(num_envs=4, hidden=8, batch_size=8, learn_start=8, replay_capacity=400)
    masks, conv = np.ones((games, 5), bool), EncoderConfig(kind="conv")
    return Agent(config, conv, masks, total_steps=200, seed=3, world_model=model)


def play(agent, frames):
    """Frames [T + 4, 4, 84, 84] of one episode that does not end."""
    no = np.zeros(4, bool)
    for t in range(len(frames) - 3):
        obs = frames[t : t + 4].swapaxes(0, 1).copy()
        reward, first = np.ones(4, np.float32), no | (t == 0)
        agent.observe(Transition(obs, agent.act(obs), reward, no, no, first, None))


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def test_it_learns_in_every_third_update_and_a_restored_agent_goes_on_the_same():
    agent, other = (an_agent(WorldModelConfig(True, every=3, hidden=16)) for _ in range(2))
    agent.begin_task(0)
    play(agent, np.random.default_rng(0).integers(0, 256, (15, 4, 84, 84), np.uint8))
    learned = []
    for update in range(7):
        if update == 4:  # between two updates that teach the model
            other.load_state_dict(copy.deepcopy(agent.state_dict()))
            other.replay = agent.replay
        model, network = weights(agent.model), weights(agent.network)
        agent._update()
        learned.append(bool((weights(agent.model) != model).any()))
        assert (weights(agent.network) != network).any()
        assert {"self_prediction", "advantage"} <= agent.last.scalars.keys()
    assert learned == [True, False, False, True, False, False, True]
    for _ in range(3):
        other._update()
        assert "self_prediction" in other.last.scalars
    assert (weights(other.network) == weights(agent.network)).all()
    assert (weights(other.model) == weights(agent.model)).all()


def test_it_learns_in_the_first_updates_of_each_game_alone():
    agent = an_agent(WorldModelConfig(True, every=1, until=2, hidden=16), games=2)
    frames = np.random.default_rng(0).integers(0, 256, (15, 4, 84, 84), np.uint8)
    learned = []
    for game in (0, 1, 0):  # the third visit is to a game that has been met before
        agent.begin_task(game)
        play(agent, frames)
        for _ in range(3):
            model = weights(agent.model)
            agent._update()
            learned.append(bool((weights(agent.model) != model).any()))
            assert ("self_prediction" in agent.last.scalars) == learned[-1]  # no stale loss
            # errors are logged as long as it will learn again
            logged = any(name.startswith("model/") for name in agent.diagnostics())
            assert logged == (len(learned) in (1, 4))
        agent.end_task(frames[:4].swapaxes(0, 1).copy())
    assert learned == [True, True, False, True, True, False, False, False, False]


def test_bad_values_name_the_key():
    with pytest.raises(UserError, match=r"world_model\.every"):
        WorldModelConfig(True, every=0)
    with pytest.raises(UserError, match=r"world_model\.targets=7"):
        WorldModelConfig(True, targets=7)
    with pytest.raises(UserError, match=r"world_model\.until"):
        WorldModelConfig(True, until=-1)


def test_a_reanalysed_row_bootstraps_from_the_planned_action():
    learner = make(atoms=1, double=True)
    batch = bandit(16, torch.Generator().manual_seed(0))
    batch = batch._replace(terminated=torch.zeros(16, dtype=torch.bool), task=torch.zeros(16))
    with torch.no_grad():
        q = learner.target(batch.obs_t).q
    rows, planned = torch.tensor([1, 5]), q[[1, 5]].argmin(1)  # nobody would select these
    learner.reanalyse = lambda latent, q, task: (rows, planned)
    _, outputs = learner.loss(batch)
    learner.reanalyse = None
    _, before = learner.loss(batch)
    changed = (outputs.priority - before.priority).abs() > 1e-7
    assert changed.nonzero()[:, 0].tolist() == [1, 5]
    acted = q.gather(1, batch.action_tm1[:, None])[:, 0]
    wanted = batch.rewards[:, 0] + 0.9 * q.min(1).values
    assert outputs.priority[rows] == pytest.approx((wanted - acted).abs()[rows], abs=1e-5)
