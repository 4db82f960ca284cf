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


def test_epsilon_may_wait_and_then_fall_at_once():
    ours = agent("agent.epsilon_hold=100", "agent.epsilon_decay=0", "agent.epsilon_end=0.5",
                 "agent.epsilon_spread=1")  # fmt: skip
    seen = []
    for ours.game_steps[0] in (0, 99, 100, 300):
        seen.append(ours.epsilon()[0])
    assert seen == [1, 1, 0.5, 0.5]


def test_until_it_learns_the_log_says_that_all_actions_are_random():
    ours = agent("agent.learn_start=1600", "agent.epsilon_decay=200", "agent.epsilon_end=0.5",
                 "agent.epsilon_spread=1")  # fmt: skip
    ours.steps = ours.game_steps[0] = 1_596
    assert ours.diagnostics()["agent/epsilon"] == 1
    ours.steps = ours.game_steps[0] = 1_600
    assert ours.diagnostics()["agent/epsilon"] == 0.5


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


def test_the_learning_network_may_act_in_training_and_its_mean_be_judged():
    ours = agent("agent=augmented", "agent.learn_start=32", "agent.epsilon_start=0",
                 "agent.epsilon_end=0", "encoder.size=der")  # fmt: skip
    ours.steps = ours.game_steps[0] = 10_000
    best = {ours.network: 3, ours.learner.target: 5}  # the action that each of them is sure of
    for network, action in best.items():
        network.q_values = lambda head, action=action: torch.eye(18)[[action] * len(head)]
    obs = np.zeros((4, 4, 84, 84), np.uint8)
    assert ours.act(obs).tolist() == [3] * 4
    assert ours.eval_policy(obs, 0).tolist() == [5] * 4
    assert ours.act(obs).tolist() == [3] * 4


def test_a_search_goes_by_the_head_of_the_network_that_looked():
    ours = agent("agent=augmented", "encoder.size=der", "world_model=latent", "planner=beam",
                 "agent.learn_start=32")  # fmt: skip
    obs = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), np.uint8)
    networks = (ours.network, ours.learner.target)
    asked = {network: [] for network in networks}
    for network in networks:
        network.head.register_forward_hook(lambda m, *_, n=network: asked[n].append(m))
    for used, unused in (networks, networks[::-1]):
        ours.greedy(obs, 0, used)
        assert len(asked[used]) > 1
        assert not asked[unused]
        asked[used].clear()


@pytest.mark.parametrize(
    "overrides",
    [
        ["agent.explore_online=true", "agent.act_with_target=false"],
        ["agent=episodic", "agent.explore_online=true"],
        ["backend=event_core", "agent.explore_online=true"],
    ],
)
def test_what_needs_one_acting_network_says_so(overrides):
    with pytest.raises(UserError, match=r"agent\.explore_online"):
        agent(*overrides)
