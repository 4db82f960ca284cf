"""Exploration: annealed once for each game, more of it in some emulators than in others."""

import numpy as np
import pytest
import torch

from errors import UserError
from training.build import build_agent
from training.config import load_config


def agent(*overrides):
    config = load_config(["sequence.games=[krull]", "agent.replay_capacity=400", *overrides])
    return build_agent(config, torch.device("cpu"))


def test_emulators_differ_in_how_often_they_explore():
    ours = agent("agent.epsilon_end=0.01", "agent.epsilon_spread=8")
    assert ours.epsilon() == pytest.approx(np.ones(4))
    ours.game_steps[0] = ours.config.epsilon_decay
    assert ours.epsilon() == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert agent("agent=drq").epsilon().shape == (1,)


def test_epsilon_may_wait_before_it_falls():
    ours = agent("agent.epsilon_hold=100", "agent.epsilon_decay=200", "agent.epsilon_end=0.5",
                 "agent.epsilon_spread=1")  # fmt: skip
    seen = []
    for ours.game_steps[0] in (0, 100, 200, 300, 1_000):
        seen.append(ours.epsilon()[0])
    assert seen == pytest.approx([1, 1, 0.75, 0.5, 0.5])


def test_actions_are_random_as_often_as_said():
    ours = agent("agent.epsilon_end=0.05", "agent.epsilon_spread=8", "agent.learn_start=32")
    ours.steps = ours.game_steps[0] = 10_000
    ours.greedy = lambda obs, game, network, explore: np.full(len(obs), 3)
    obs = np.zeros((4, 4, 84, 84), np.uint8)
    other = np.mean([ours.act(obs) != 3 for _ in range(4_000)], 0)
    assert other == pytest.approx(np.array([0.05, 0.1, 0.2, 0.4]) * 17 / 18, abs=0.03)


def test_a_spread_that_is_no_probability_is_refused():
    with pytest.raises(UserError, match=r"agent\.epsilon_spread"):
        agent("agent.epsilon_end=0.5")
