"""The learner on a fake encoder: gradients reach what they should, a known answer is learned."""

import copy

import pytest
import torch
from torch import nn

from agents.config import AgentConfig
from agents.encoders import Encoding
from agents.learner import Learner, LearnerInputs, LearnerOutputs
from agents.network import Head, QNetwork
from errors import UserError
from training.build import build_agent
from training.config import load_config

ACTIONS = 3


class FakeEncoder(nn.Module):
    """Mean brightness of each frame, then one linear layer."""

    latent_dim = 8
    layer_names = ("fake",)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 8)

    def forward(self, obs):
        x = torch.relu(self.linear(obs.float().mean((2, 3)) / 255))
        return Encoding(x, x.mean().reshape(1), torch.zeros(1))


def make(**values):
    defaults = {"hidden": 32, "target_tau": 1.0, "target_period": 1, "learning_rate": 1e-2}
    config = AgentConfig(**(defaults | values))
    torch.manual_seed(0)
    network = QNetwork(FakeEncoder(), ACTIONS, config)
    return Learner(network, copy.deepcopy(network), config, target_rate=0.1)


def bandit(count=64, generator=None, mask=None):
    """Bright frames pay for action 0, dark ones for action 2; every episode ends at once."""
    bright = torch.rand(count, generator=generator) < 0.5
    obs = (bright[:, None, None, None] * 200).to(torch.uint8).expand(-1, 4, 84, 84).contiguous()
    action = torch.randint(ACTIONS, (count,), generator=generator)
    best = torch.where(bright, 0, 2)
    rewards = torch.zeros(count, 10)
    rewards[:, 0] = (action == best).float()
    return LearnerInputs(
        obs,
        action,
        rewards,
        torch.ones(count, dtype=torch.long),
        torch.ones(count, dtype=torch.bool),
        obs,
        torch.ones(count, ACTIONS, dtype=torch.bool) if mask is None else mask,
        torch.ones(count),
        torch.tensor(0.9),
    )


@pytest.mark.parametrize("values", [{"atoms": 1}, {"atoms": 21, "v_min": -2.0, "v_max": 2.0}])
def test_learns_a_contextual_bandit(values):
    learner = make(**values)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        learner.update(bandit(generator=generator))
    obs = torch.zeros(2, 4, 84, 84, dtype=torch.uint8)
    obs[1] = 200
    q = learner.network(obs).q
    assert q.argmax(1).tolist() == [2, 0]
    assert q[0, 2].item() == pytest.approx(1, abs=0.1)
    assert q[0, 1].item() == pytest.approx(0, abs=0.1)


def test_every_parameter_gets_a_gradient():
    learner = make()
    before = [p.clone() for p in learner.params]
    learner.update(bandit())
    assert all((p != b).any() for p, b in zip(learner.params, before))


def test_target_follows_slowly():
    learner = make(target_tau=0.1)
    old = [p.clone() for p in learner.target.parameters()]
    learner.update(bandit())
    for target, online, before in zip(
        learner.target.parameters(), learner.network.parameters(), old
    ):
        torch.testing.assert_close(target, before + 0.1 * (online - before))


def test_target_averages_a_fixed_part_of_the_training_once_the_schedules_are_annealed():
    learner = make(target_tau=0.1, target_tau_end=0.02, anneal_updates=10)
    taus = []
    for learner.updates in (0, 10, 20, 40, 1000):
        taus.append(learner.target_tau())
    assert taus == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.02])
    learner.anneal_from = 980  # a new game
    assert learner.target_tau() == pytest.approx(0.05)
    copies, stays = make(anneal_updates=10), make(target_tau=0.1, target_tau_end=0.0)
    copies.updates = stays.updates = 100_000
    assert (copies.target_tau(), stays.target_tau()) == (1.0, 0.1)
    old = [p.clone() for p in learner.target.parameters()]
    learner.update(bandit())  # the 21st update of the game
    for target, online, before in zip(
        learner.target.parameters(), learner.network.parameters(), old
    ):
        torch.testing.assert_close(target, before + 0.1 * 10 / 21 * (online - before))


def test_bootstrapping_online_is_a_target_copied_every_update_in_one_pass_less():
    """To the bit, and beside it the target may be a slow mean."""
    copied, online = make(), make(bootstrap="online", target_tau=0.1, target_tau_end=0.0)
    first = [p.clone() for p in online.target.parameters()]
    passes = {copied: 0, online: 0}
    for learner in passes:

        def count(*_, learner=learner):
            passes[learner] += 1

        learner.network.register_forward_hook(count)
        learner.target.register_forward_hook(count)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            batch = bandit(generator=generator)
            learner.update(batch._replace(terminated=torch.zeros_like(batch.terminated)))
    assert (passes[online], passes[copied]) == (10, 15)
    for a, b in zip(copied.network.parameters(), online.network.parameters()):
        assert torch.equal(a, b)
    for slow, fast, begin in zip(online.target.parameters(), online.network.parameters(), first):
        assert 0 < (slow - begin).norm() < (fast - begin).norm()
    with pytest.raises(UserError, match=r"agent\.bootstrap"):
        make(bootstrap="none")


def test_target_carries_no_graph():
    learner = make(target_tau=0.1)
    learner.update(bandit())
    assert not any(p.requires_grad or p.grad_fn for p in learner.target.parameters())


def test_n_and_gamma_anneal():
    learner = make(n_step_start=10, n_step_end=3, gamma_start=0.9, gamma_end=0.99, anneal_updates=2)
    assert (learner.n_step(), learner.gamma()) == (10, pytest.approx(0.9))
    learner.updates = 2
    assert (learner.n_step(), learner.gamma()) == (3, pytest.approx(0.99))


def test_state_goes_round_trip_and_training_goes_on_the_same():
    a, b = make(), make()
    generator = torch.Generator().manual_seed(1)
    a.update(bandit(generator=generator))
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    batch = bandit(generator=generator)
    a.update(batch)
    b.update(batch)
    for left, right in zip(a.network.parameters(), b.network.parameters()):
        assert torch.equal(left, right)


def test_nan_loss_is_one_clear_line():
    learner = make()
    with torch.no_grad():
        learner.network.encoder.linear.weight.fill_(float("nan"))
    outputs = learner.update(bandit())
    with pytest.raises(UserError, match=r"loss/total became nan.*agent\.learning_rate"):
        learner.check_finite(outputs)


def test_a_nan_loss_with_the_model_alone_is_found():
    """It is of other updates than the sum without, which may still be of a sound one."""
    scalars = {"total": torch.zeros(()), "total_with_model": torch.tensor(float("nan"))}
    with pytest.raises(UserError, match="loss/total_with_model became nan"):
        make().check_finite(LearnerOutputs(torch.zeros(0), scalars))


@pytest.mark.parametrize("part", ["network", "target"])
def test_broken_weights_are_never_saved(part):
    """The last loss was of the weights before the update that broke them."""
    config = load_config(["sequence.games=[catch]", "agent.replay_capacity=400"])
    agent = build_agent(config, torch.device("cpu"))
    agent.last = LearnerOutputs(torch.zeros(0), {"total": torch.zeros(())})
    agent.state_dict()
    with torch.no_grad():
        next(getattr(agent.learner, part).parameters()).view(-1)[0] = float("inf")
    with pytest.raises(UserError, match=r"weights are no longer numbers.*agent\.learning_rate"):
        agent.state_dict()


def test_a_drift_that_all_units_share_cannot_silence_normalised_features():
    latent, alive = torch.rand(64, 256), {}
    for normalise in (False, True):
        head = Head(256, ACTIONS, AgentConfig(hidden=32, atoms=1, normalise=normalise))
        before = head.features(latent)
        with torch.no_grad():
            head.hidden.weight.sub_(1.0)  # every input is positive
        features = head.features(latent)
        alive[normalise] = (torch.relu(features).amax(0) > 0).float().mean().item()
        assert features.shape == (64, head.hidden_width)
    assert alive == {False: 0.0, True: (torch.relu(before).amax(0) > 0).float().mean().item()}
    torch.testing.assert_close(features, before, atol=1e-3, rtol=1e-3)
    streams = features.unflatten(1, (2, -1))
    torch.testing.assert_close(streams.mean(-1), torch.zeros(64, 2), atol=1e-3, rtol=0)


def test_noisy_layers_explore_and_can_be_quiet():
    learner = make(noisy=True, epsilon_start=0.0, epsilon_end=0.0, eval_epsilon=0.0)
    obs = bandit(4).obs_tm1
    quiet = learner.network(obs).q
    learner.network.resample_noise(torch.Generator().manual_seed(0))
    assert not torch.equal(learner.network(obs).q, quiet)
    learner.network.quiet()
    assert torch.equal(learner.network(obs).q, quiet)


def test_a_checkpoint_of_another_device_leaves_the_optimiser_to_this_one():
    learner, other = make(), make()
    other.update(bandit())
    state = other.state_dict()
    for group in state["optimiser"]["param_groups"]:
        group["capturable"] = True  # as a GPU's has it, and the other way round
    learner.load_state_dict(state)
    assert not any(group["capturable"] for group in learner.optimiser.param_groups)
    learner._capturable = True
    learner.load_state_dict(other.state_dict())
    assert all(group["capturable"] for group in learner.optimiser.param_groups)
