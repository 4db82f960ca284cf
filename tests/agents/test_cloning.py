"""Cloning of old games in an update: which rows, and that fixed shapes give the same loss."""

import numpy as np
import pytest
import torch

from agents.agent import Agent, Transition
from agents.config import AgentConfig
from agents.continual import ContinualConfig, ReplayConfig
from agents.encoders import EncoderConfig
from errors import UserError

N, A = 4, 18


def make(**values) -> Agent:
    config = AgentConfig(hidden=16, batch_size=16, learn_start=16, replay_capacity=400, **values)
    masks = np.ones((2, A), bool)
    masks[0, 6:] = False
    replay = ReplayConfig("fifo_and_reservoir", clone_policy=0.3, clone_value=0.7)
    return Agent(
        config, EncoderConfig(kind="conv"), masks, 10_000, 3,
        continual=ContinualConfig(replay=replay),
    )  # fmt: skip


def fill(agent: Agent, game: int, steps: int = 30) -> None:
    rng = np.random.default_rng(game)
    frames = rng.integers(0, 256, (N, steps + 4, 84, 84), dtype=np.uint8)
    agent.begin_task(game)
    for t in range(steps):
        obs = frames[:, t : t + 4]
        flags = np.zeros(N, bool)
        action = rng.choice(np.flatnonzero(agent.masks[game].numpy()), N)
        agent.observe(
            Transition(obs, action, rng.normal(size=N).astype(np.float32), flags, flags,
                       flags | (t == 0), None)
        )  # fmt: skip
    agent.learn()
    if game == 0:
        agent.end_task(frames[:, steps : steps + 4])


def of_two_games(**values) -> Agent:
    agent = make(**values)
    fill(agent, 0)
    fill(agent, 1)
    return agent


def test_nothing_is_cloned_before_a_game_was_left():
    agent = make()
    fill(agent, 1)
    batch = agent.replay.sample(16, 1, np.random.default_rng(0))
    assert not agent.continual.foreign(batch.task).any()
    assert not agent.continual.foreign(1 - batch.task).any()
    assert "clone" not in agent.last.scalars


def test_an_agent_that_has_diverged_is_not_saved():
    """On a GPU nobody has looked at the loss before a checkpoint is due."""
    agent = of_two_games()
    agent.last.scalars["total"] = torch.tensor(float("nan"))
    with pytest.raises(UserError, match=r"loss/total became nan"):
        agent.state_dict()


@pytest.mark.parametrize("acts", [True, False])
def test_what_is_cloned_is_the_network_that_was_judged(acts):
    """Not a target network that was copied thousands of updates ago, or never."""
    agent = make(act_with_target=acts, target_tau=0.5, target_tau_end=0.0, target_period=25)
    fill(agent, 0)
    assert agent.learner.updates > 25
    networks = (agent.learner.target, agent.network)
    kept = [
        all(map(torch.equal, agent.continual.old.parameters(), network.parameters()))
        for network in networks
    ]
    assert kept == [acts, not acts]


def test_what_is_cloned_has_no_noise():
    agent = of_two_games(noisy=True, epsilon_end=0.0, epsilon_spread=1.0)
    again = make(noisy=True, epsilon_end=0.0, epsilon_spread=1.0)
    again.continual.load_state_dict(agent.continual.state_dict())
    for network, silent in [(agent.learner.target, False), (agent.continual.old, True),
                            (again.continual.old, True)]:  # fmt: skip
        noise = [b for name, b in network.named_buffers() if "noise_" in name]
        assert len(noise) == 6
        assert all((not b.any()) == silent for b in noise)


def test_fixed_shapes_give_the_loss_and_gradients_of_the_old_rows_alone():
    agent = of_two_games()
    batch = agent.replay.sample(16, 1, np.random.default_rng(1))
    inputs = agent._to_device(batch, 0.99)
    assert inputs.foreign.tolist() == [game == 0 for game in batch.task]
    assert 0 < inputs.foreign.sum() < 16
    found = []
    for fixed in (False, True):
        loss = agent.continual.clone_loss(agent.network(inputs.obs_tm1), inputs, fixed)
        found.append([loss, *torch.autograd.grad(loss, agent.learner.params, allow_unused=True)])
    for few, all_rows in zip(*found):
        assert (few is None) == (all_rows is None)
        if few is not None:
            torch.testing.assert_close(few, all_rows, rtol=1e-4, atol=1e-6)
    # by hand: the mean over the whole batch of each old row's two losses
    old = inputs.foreign
    with torch.no_grad():
        new_q = agent.network(inputs.obs_tm1).q[old][:, :6]
        old_q = agent.continual.old(inputs.obs_tm1).q[old][:, :6]
    t = agent.continual.config.replay.clone_temperature
    p, q = torch.log_softmax(old_q / t, 1), torch.log_softmax(new_q / t, 1)
    wanted = 0.3 * (p.exp() * (p - q)).sum() + 0.7 * ((new_q - old_q) ** 2).mean(1).sum()
    assert found[0][0].item() == pytest.approx(wanted.item() / 16, rel=1e-4)


def test_without_old_rows_fixed_shapes_add_nothing():
    agent = of_two_games()
    batch = agent.replay.sample(16, 1, np.random.default_rng(1))
    inputs = agent._to_device(batch._replace(task=np.full(16, 1)), 0.99)
    assert agent.continual.clone_loss(agent.network(inputs.obs_tm1), inputs) is None
    loss = agent.continual.clone_loss(agent.network(inputs.obs_tm1), inputs, True)
    assert loss.item() == 0
    assert not any(g.any() for g in torch.autograd.grad(loss, agent.network.head.parameters()))
