"""Planners on worlds that can be worked out by hand, and against exact search."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents import planners
from agents.agent import Agent
from agents.config import AgentConfig
from agents.encoders import EncoderConfig
from agents.imagination import Imagination
from agents.planners import PlannerConfig
from agents.planners.gumbel import completed_q, prior_logits, rounds, sigma
from agents.world_model import ModelStep, WorldModelConfig
from errors import UserError


class TableModel:
    """Deterministic world of S states as one-hot latents; tables [S, A]."""

    def __init__(self, following, reward, discount=None):
        self.following = torch.as_tensor(following)
        self.reward = torch.as_tensor(reward, dtype=torch.float32)
        ones = torch.ones_like(self.reward)
        self.discount = ones if discount is None else torch.as_tensor(discount).float()
        self.nodes = 0

    def step(self, latent, action):
        state = latent.argmax(1)
        self.nodes += len(state)
        return ModelStep(
            self.one_hot(self.following[state, action]),
            self.reward[state, action],
            self.discount[state, action],
        )

    def one_hot(self, state):
        return torch.nn.functional.one_hot(torch.as_tensor(state), len(self.following)).float()


def search(config, model, state, q, gamma=0.9, mask=None, **more):
    """Plan from states [B] with the value table q [S, A]."""
    q = torch.as_tensor(q, dtype=torch.float32)
    root = model.one_hot(state)
    mask = torch.ones(len(root), q.shape[1], dtype=torch.bool) if mask is None else mask

    table = q

    def value_fn(latent):
        return table[latent.argmax(1)].masked_fill(~mask[0], -torch.inf)

    q = q[torch.as_tensor(state)]
    return planners.search(config, root, q, mask, model, value_fn, gamma, **more)


def beam(**values):
    return PlannerConfig(name="beam", **values)


def gumbel(**values):
    return PlannerConfig(name="gumbel", **values)


def random_world(seed, states=12, actions=3):
    rng = np.random.default_rng(seed)
    following = rng.integers(states, size=(states, actions))
    reward = rng.integers(-1, 2, (states, actions)).astype(np.float32)
    discount = (rng.random((states, actions)) < 0.85).astype(np.float32)
    return TableModel(following, reward, discount), rng.normal(size=(states, actions))


def exact(model, q, gamma, depth):
    """VPN's Q^depth [S, A] by recursion over the whole tree."""
    value = torch.as_tensor(q).float().amax(1)
    out = None
    for d in range(1, depth + 1):
        mixed = value if out is None else value / d + out.amax(1) * (d - 1) / d
        out = model.reward + gamma * model.discount * mixed[model.following]
    return out


@pytest.mark.parametrize("config", [beam(depth=0), gumbel(simulations=0)])
def test_without_a_step_ahead_the_choice_is_the_reactive_one(config):
    model, q = random_world(0)
    mask = torch.tensor([[True, False, True]] * 12)
    result = search(config, model, np.arange(12), q, mask=mask)
    wanted = torch.as_tensor(q).float().masked_fill(~mask, -torch.inf)
    assert torch.equal(result.q, wanted)
    assert torch.equal(result.action, wanted.argmax(1))
    assert model.nodes == 0


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_wide_beam_is_the_exact_search(depth):
    for seed in range(5):
        model, q = random_world(seed)
        result = search(beam(depth=depth, width=9, branch=3), model, np.arange(12), q)
        torch.testing.assert_close(result.q, exact(model, q, 0.9, depth))


def test_a_beam_of_one_branch_is_a_rollout_of_every_action():
    model, q = random_world(6)
    result = search(beam(depth=4, width=18, branch=1), model, np.arange(12), q)
    assert model.nodes == 12 * 3 * 4
    greedy, state = torch.as_tensor(q).argmax(1), model.following  # [12, 3] after the first action
    for depth in range(1, 4):
        level = slice(3 * depth, 3 * depth + 3)
        by_action = result.tree.latent[:, level].argmax(2).sort(1).values
        state = model.following[state, greedy[state]]
        assert torch.equal(by_action, state.sort(1).values)


def test_beam_by_hand():
    # 0 -a0-> 1 (pays 1), 0 -a1-> 2; 1: both to 3; 2 -a0-> 4 pays 7
    model = TableModel(
        [[1, 2], [3, 3], [4, 3], [3, 3], [3, 3]], [[1, 0], [0, 0], [7, 0], [0, 0], [0, 0]]
    )
    q = [[0, 0], [2, 1], [1, 0], [0, 0], [0, 0]]
    one = search(beam(depth=1), model, [0], q, gamma=0.5)
    assert one.q.tolist() == [[1 + 0.5 * 2, 0.5 * 1]]
    two = search(beam(depth=2, width=2, branch=2), model, [0], q, gamma=0.5)
    # V^2 = V / 2 + max Q^1 / 2
    assert two.q.tolist() == [[1 + 0.5 * (2 / 2 + 0 / 2), 0.5 * (1 / 2 + 7 / 2)]]
    assert two.action.tolist() == [1]
    narrow = search(beam(depth=2, width=1, branch=2), model, [0], q, gamma=0.5)
    assert narrow.q.tolist() == [[1.5, 0.5]]  # only the way by 1 is thought on; 2 keeps V = 1
    tree = two.tree
    assert tree.parent[0].tolist() == [-1, -1, 0, 0, 1, 1]
    assert tree.q[0, 4].item() == 7.0


def test_an_end_is_worth_its_reward_alone():
    model = TableModel([[1, 1], [1, 1]], [[1, 0], [0, 0]], [[0, 1], [1, 1]])
    for config in (beam(depth=1), beam(depth=2), gumbel(simulations=4)):
        result = search(config, model, [0], [[0, 0], [3, 3]], gamma=0.5)
        assert result.q[0, 0] == pytest.approx(1.0)
        assert result.q[0, 1] > 1.0


@pytest.mark.parametrize(
    "config", [beam(depth=3, width=3, branch=2), gumbel(simulations=16, considered=3)]
)
def test_rows_do_not_touch_each_other(config):
    model, q = random_world(3)
    together = search(config, model, np.arange(12), q)
    order = np.random.default_rng(0).permutation(12)
    shuffled = search(config, model, order, q)
    torch.testing.assert_close(shuffled.q, together.q[order])
    assert torch.equal(shuffled.action, together.action[order])
    for i in (0, 7):
        torch.testing.assert_close(search(config, model, [i], q).q[0], together.q[i])


@pytest.mark.parametrize("config", [beam(depth=3), gumbel(simulations=8)])
def test_actions_that_do_not_exist_are_never_taken(config):
    model, q = random_world(4, actions=5)
    q[:, 1] = 100.0
    mask = torch.tensor([[True, False, True, True, False]]).expand(12, -1)
    result = search(config, model, np.arange(12), q, mask=mask)
    assert (result.q[:, [1, 4]] == -torch.inf).all()
    assert torch.isfinite(result.q[:, [0, 2, 3]]).all()
    assert (result.q < 50).all()
    assert set(result.action.tolist()) <= {0, 2, 3}


def test_a_search_that_gains_little_does_not_override():
    model, q = random_world(5)
    q = torch.as_tensor(q)
    root = np.arange(12)
    free = search(beam(depth=3), model, root, q)
    reactive = q.argmax(1)
    promised = free.q.max(1).values - free.q.gather(1, reactive[:, None])[:, 0]
    bar = promised[promised > 0].median().item()
    careful = search(beam(depth=3, gain=bar), model, root, q)
    assert torch.equal(careful.q, free.q)
    assert torch.equal(careful.action, torch.where(promised >= bar, free.action, reactive))
    assert 0 < (careful.action != reactive).sum() < (free.action != reactive).sum()


def test_rounds_of_sequential_halving():
    assert rounds(4, 16) == [4, 4, 2, 2, 2, 2]
    assert rounds(2, 3) == [2, 1]
    assert rounds(1, 3) == [1, 1, 1]
    assert sum(rounds(3, 32)) == 32
    # mctx: 8 considered, 16 simulations: visits of 2 for all, then 4 and 2 more with 1 extra each
    assert rounds(8, 16) == [8, 4, 2, 2]


def test_completed_q_and_sigma_by_hand():
    logits = np.log(np.array([0.5, 0.25, 0.25]))
    q = completed_q(np.array([2.0, 4.0, 0.0]), np.array([1, 2, 0]), logits, np.array(1.0))
    mean = (0.5 * 2 + 0.25 * 4) / 0.75
    assert q == pytest.approx([2.0, 4.0, (1 + 3 * mean) / 4])
    config = gumbel()
    there = np.ones(3, bool)
    out = sigma(np.array([1.0, 3.0, 2.0]), np.array([0, 2, 1]), there, config)
    assert out == pytest.approx(52 * 0.1 * np.array([0, 1, 0.5]))
    z = prior_logits(np.array([1.0, 3.0, -np.inf]), 0.5)
    assert z[:2] == pytest.approx([-2, 2], abs=1e-6)
    assert z[2] == -np.inf


def test_gumbel_tree_by_hand():
    """Two actions, four simulations: the tree is worked out below."""
    # 0: a0 -> 1 pays 1, a1 -> 2; 1: a0 -> 3, a1 -> 4 pays 2; 2: a0 -> 5, a1 -> 6; others stay
    following = [[1, 2], [3, 4], [5, 6], [3, 3], [4, 4], [5, 5], [6, 6]]
    reward = np.zeros((7, 2))
    reward[0, 0], reward[1, 1] = 1, 2
    q = np.zeros((7, 2))
    q[0], q[1], q[2] = [0.4, 0.2], [0.6, 0.5], [0.3, 0.2]
    config = gumbel(simulations=4, considered=2)
    result = search(config, TableModel(following, reward), [0], q, gamma=0.5)
    # Round 1 visits 1 (1 + .5 * .6) and 2 (.5 * .3). In round 2 both take their better prior action
    # first: 1 -> 3 (0), 2 -> 5 (0), worth 1 + .5 * (0 + .5 * 0) and 0.
    assert result.q[0].tolist() == pytest.approx([(1.3 + 1.0) / 2, (0.15 + 0.0) / 2])
    six = search(gumbel(simulations=6, considered=2), TableModel(following, reward), [0], q, 0.5)
    # Round 3: below 1 the tried action is worth 0 and the other v_mix > 0, so 4 is found:
    # 1 + .5 * (2 + .5 * 0) = 2.
    assert six.q[0, 0] == pytest.approx((1.3 + 1.0 + 2.0) / 3)
    assert six.action.tolist() == [0]


def test_gumbel_finds_the_best_arm_of_a_bandit():
    rng = np.random.default_rng(0)
    arms, hits, prior_hits = 8, 0, 0
    for _ in range(60):
        pays = rng.normal(size=arms)
        following, reward = np.ones((2, arms), int), np.zeros((2, arms))
        reward[0] = pays
        q = np.zeros((2, arms))
        q[0] = pays + rng.normal(size=arms)  # what the agent believes
        config = gumbel(simulations=16, considered=8)
        result = search(config, TableModel(following, reward), [0], q)
        hits += int(result.action[0] == pays.argmax())
        prior_hits += int(q[0].argmax() == pays.argmax())
    # The prior has its say in sigma's scale, so that not every arm is the best one.
    assert hits >= 48
    assert prior_hits < 40


def test_gumbel_noise_chooses_the_actions_that_are_searched():
    model, q = random_world(7, actions=5)
    root, config = np.arange(12), gumbel(simulations=4, considered=2)
    noise = np.random.default_rng(0).gumbel(size=(12, 5))
    result = search(config, model, root, q, gumbel=noise)
    first = prior_logits(q, 1.0) + noise
    for b in root:
        searched = result.tree.action[b][result.tree.parent[b] == -1]
        assert set(searched.tolist()) == set(np.argsort(-first[b])[:2].tolist())
    still = search(config, model, root, q)
    assert torch.equal(still.action, search(config, model, root, q, gumbel=0 * noise).action)
    assert (still.action != result.action).any()


def imagination(planner):
    """An agent that stands in state 0 of a world of five actions which are all alike."""
    model = TableModel(np.zeros((2, 5), int), np.zeros((2, 5)))
    agent = SimpleNamespace(
        latent=model.one_hot(np.zeros(64, int)),
        masks=torch.tensor([[True, True, True, True, False]]),
        model=model,
        learner=SimpleNamespace(gamma=lambda: 0.9),
        values=lambda latent, game, memory, network: torch.zeros(len(latent), 5),
    )
    return Imagination(WorldModelConfig(), planner, agent, seed=3)


def test_noise_is_drawn_where_the_agent_acts_to_learn():
    q, config = torch.zeros(64, 5), gumbel(simulations=4, considered=2)
    one, other = imagination(config), imagination(config)
    calm = one.plan(q, 0).action
    assert (calm == calm[0]).all()
    assert one.rng.bit_generator.state == other.rng.bit_generator.state  # evaluation draws nothing
    lively = one.plan(q, 0, explore=True).action
    assert set(lively.tolist()) == {0, 1, 2, 3}  # equal moments, other actions; never one missing
    assert torch.equal(other.plan(q, 0, explore=True).action, lively)
    other.rng.bit_generator.state = one.rng.bit_generator.state
    again = one.plan(q, 0, explore=True).action
    assert not torch.equal(again, lively)
    assert torch.equal(other.plan(q, 0, explore=True).action, again)
    beamed = imagination(beam(depth=1))
    state = beamed.rng.bit_generator.state
    beamed.plan(q, 0, explore=True)
    assert beamed.rng.bit_generator.state == state


def test_an_agent_draws_noise_in_acting_alone_and_goes_on_the_same_when_restored():
    config = AgentConfig(
        num_envs=4,
        hidden=8,
        batch_size=8,
        learn_start=8,
        epsilon_start=0.0,
        epsilon_end=0.0,
        replay_capacity=400,
    )
    agent, other = (
        Agent(
            config,
            EncoderConfig(kind="conv"),
            np.ones((1, 5), bool),
            total_steps=100,
            seed=3,
            world_model=WorldModelConfig(True, hidden=16),
            planner=gumbel(simulations=4, considered=2),
        )
        for _ in range(2)
    )
    agent.begin_task(0)
    agent.steps = 8  # it has begun to learn, and so to ask its network
    obs = np.random.default_rng(0).integers(0, 256, (4, 4, 84, 84), np.uint8)
    state = agent.imagination.rng.bit_generator.state
    judged = [agent.eval_policy(obs, 0).tolist() for _ in range(8)]
    assert all(actions == judged[0] for actions in judged)
    assert agent.imagination.rng.bit_generator.state == state
    played = [agent.act(obs).tolist() for _ in range(8)]
    assert any(actions != played[0] for actions in played)
    other.load_state_dict(agent.state_dict())
    assert [agent.act(obs).tolist() for _ in range(8)] == [
        other.act(obs).tolist() for _ in range(8)
    ]


def test_planning_beats_reacting_where_the_values_are_rough():
    """Return of playing random worlds for 30 steps: value iteration, search, reaction."""
    gamma, totals = 0.9, {"react": 0.0, "beam": 0.0, "gumbel": 0.0}
    for seed in range(20):
        model, noise = random_world(seed)
        best = torch.zeros(model.reward.shape)
        for _ in range(100):
            best = model.reward + gamma * model.discount * best.amax(1)[model.following]
        q = best + torch.as_tensor(noise).float()
        states = np.arange(12)
        choices = {
            "react": q.argmax(1),
            "beam": search(beam(depth=3, width=9, branch=3), model, states, q).action,
            "gumbel": search(gumbel(simulations=32, considered=3), model, states, q).action,
        }
        for name, action in choices.items():
            state, weight = torch.arange(12), torch.ones(12)
            for _ in range(30):
                a = action[state]
                totals[name] += float((weight * model.reward[state, a]).sum())
                weight = weight * gamma * model.discount[state, a]
                state = model.following[state, a]
    assert totals["beam"] > totals["react"] * 1.05
    assert totals["gumbel"] > totals["react"] * 1.05


def test_bad_values_name_the_key():
    with pytest.raises(UserError, match=r"planner\.name=mcts"):
        PlannerConfig(name="mcts")
    with pytest.raises(UserError, match=r"planner\.depth"):
        PlannerConfig(depth=9)
