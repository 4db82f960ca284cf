"""Plasticity: dead units are found and start anew, useless ones are replaced, and the measures."""

import copy

import numpy as np
import pytest
import torch

from agents.plasticity import dormant, effective_rank
from agents.units import activity
from errors import UserError
from training.build import build_agent
from training.config import load_config


def make(*overrides):
    """An agent with a little replay and one update behind it."""
    config = load_config(
        [
            "sequence.games=[krull,pong]",
            "agent.replay_capacity=600",
            "agent.learn_start=64",
            "agent.hidden=16",
            "device=cpu",
            *overrides,
        ]
    )
    agent = build_agent(config, torch.device("cpu"))
    agent.begin_task(0)
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (4, 4, 84, 84), dtype=np.uint8)
    for step in range(60):
        new = rng.integers(0, 256, (4, 1, 84, 84), dtype=np.uint8)
        agent.replay.add(
            obs,
            rng.integers(18, size=4),
            np.zeros(4, np.float32),
            np.zeros(4, bool),
            np.zeros(4, bool),
            np.full(4, step == 0),
            0,
            final_obs=None,
        )
        obs = np.concatenate([obs[:, 1:], new], 1)
    agent.steps = 240
    agent._update()
    return agent


def units(agent, name):
    return next(u for u in agent.plasticity.layers if u.name == name)


@pytest.fixture(params=["spiking", "conv"])
def encoder(request):
    return request.param


def test_activity_is_what_the_encoder_says(encoder):
    agent = make(f"encoder={encoder}")
    obs = agent.plasticity._observations(np.random.default_rng(0))
    seen = activity(agent.network, obs)
    encoding = agent.network.encoder(obs)
    torch.testing.assert_close(seen.latent, encoding.latent, rtol=1e-4, atol=1e-4)
    assert [len(m) for m in seen.units.values()] == [u.count for u in agent.plasticity.layers]


def test_dormant_by_hand():
    assert dormant(torch.tensor([0.0, 1.0, 2.0, 0.05]), 0.1).tolist() == [True, False, False, True]
    assert dormant(torch.zeros(3), 0.0).all()


def test_effective_rank_by_hand():
    assert effective_rank(torch.eye(5)) == 5
    assert effective_rank(torch.ones(5, 3)) == 1
    assert effective_rank(torch.diag(torch.tensor([98.0, 1.0, 1.0]))) == 2  # delta = .01
    assert effective_rank(torch.zeros(4, 4)) == 0


@pytest.mark.parametrize("layer", ["conv1", "conv2", "hidden"])
def test_redo_wakes_a_dead_unit_and_changes_no_value(encoder, layer):
    agent = make(f"encoder={encoder}", "plasticity=redo", "plasticity.every=1", "plasticity.tau=0")
    own = units(agent, layer)
    bias = own.incoming[1].parameter
    with torch.no_grad():  # unit 2 never fires
        own.incoming[0].by_unit(own.incoming[0].parameter)[2] = 0
        bias[2] = -100
    obs = agent.plasticity._observations(np.random.default_rng(0))
    assert activity(agent.network, obs).units[layer][2] == 0
    dead = {u.name: dormant(activity(agent.network, obs).units[u.name], 0) for u in [own]}[layer]
    before = agent.network(obs).q.detach()
    agent.plasticity._restart(own, np.flatnonzero(dead))
    torch.testing.assert_close(agent.network(obs).q, before)
    assert activity(agent.network, obs).units[layer][2] > 0
    for leads in own.outgoing:
        view = leads.by_unit(leads.parameter)
        if leads.first <= 2 < leads.first + len(view):
            assert (view[2 - leads.first] == 0).all()
            assert (view[3 - leads.first] != 0).any()
    moments = agent.learner.optimiser.state[own.incoming[0].parameter]
    assert (own.incoming[0].by_unit(moments["exp_avg_sq"])[2] == 0).all()
    alive = int(np.flatnonzero(~dead)[0])
    assert (own.incoming[0].by_unit(moments["exp_avg_sq"])[alive] != 0).any()


@pytest.mark.parametrize("layer", ["conv2", "hidden"])
def test_a_new_unit_adds_nothing_through_the_noise_of_its_outgoing_weights(layer):
    agent = make("agent.noisy=true", "agent.epsilon_end=0", "plasticity=redo", "encoder=conv")
    own = units(agent, layer)
    obs = agent.plasticity._observations(np.random.default_rng(0))
    loud = agent.network(obs).q.detach()
    agent.plasticity._restart(own, np.array([2]))
    before = agent.network(obs).q.detach()
    assert not torch.allclose(loud, before)
    with torch.no_grad():
        own.incoming[1].parameter[2] = 5.0  # however active it is
    torch.testing.assert_close(agent.network(obs).q, before)


def test_redo_looks_at_its_times():
    agent = make("plasticity=redo", "plasticity.every=3", "plasticity.tau=0")
    own = units(agent, "hidden")
    with torch.no_grad():
        own.incoming[0].by_unit(own.incoming[0].parameter)[5] = 0
        own.incoming[1].parameter[5] = -100
    agent._update()
    assert agent.plasticity.reset_units == 0
    agent._update()
    assert agent.learner.updates == 3
    assert agent.plasticity.reset_units >= 1
    assert own.incoming[1].parameter[5] > -1


def test_continual_backprop_replaces_the_least_useful_mature_unit():
    agent = make(
        "plasticity=continual_backprop",
        "plasticity.look=1",
        "plasticity.maturity=2",
        "plasticity.rate=0.03125",  # of 32 hidden units one an update
    )
    own = units(agent, "hidden")
    with torch.no_grad():  # outgoing weights so small that nobody would miss it
        own.outgoing[0].by_unit(own.outgoing[0].parameter)[7] = 1e-9
    agent.plasticity.age["hidden"][:] = 0
    agent.plasticity.looks["hidden"][:] = 0
    agent.plasticity.utility["hidden"].zero_()
    for _ in range(2):
        agent.plasticity._replace_useless()
    assert (agent.plasticity.age["hidden"] == 2).all()  # none is mature yet
    kept = own.incoming[1].parameter.detach().clone()  # biases: units before it start anew too
    agent.plasticity._replace_useless()
    changed = (own.incoming[1].parameter != kept).nonzero()[:, 0].tolist()
    assert changed == [7]
    assert agent.plasticity.age["hidden"][7] == 0


def test_shrink_perturb_moves_all_weights_when_a_game_begins():
    agent = make("plasticity=shrink_perturb", "plasticity.shrink=0.75")
    before = [p.detach().clone() for p in agent.network.parameters()]
    twin = make("plasticity=shrink_perturb")
    seed = int(twin.plasticity.rng.integers(2**31))
    fresh = twin.plasticity.fresh(seed)
    agent.begin_task(1)
    for p, old, new in zip(agent.network.parameters(), before, fresh.parameters()):
        torch.testing.assert_close(p.detach(), 0.75 * old + 0.25 * new.detach())


def test_reset_renews_the_head_and_half_of_the_encoder_at_its_times():
    agent = make("plasticity=reset", "plasticity.every=2", "plasticity.until=2")
    seed = int(copy.deepcopy(agent.plasticity.rng).integers(2**31))
    fresh, learner = agent.plasticity.fresh(seed), agent.learner
    networks = (agent.network, learner.target)
    seen = []

    def as_it_was():  # after the update's step and before what plasticity does
        seen.append([[p.detach().clone() for p in n.encoder.parameters()] for n in networks])
        after()

    after, agent.plasticity.after_update = agent.plasticity.after_update, as_it_was
    agent._update()
    assert learner.updates == 2
    for network, old in zip(networks, seen[0]):
        for p, was, new in zip(network.encoder.parameters(), old, fresh.encoder.parameters()):
            torch.testing.assert_close(p.detach(), 0.5 * was + 0.5 * new.detach())
        for p, new in zip(network.head.parameters(), fresh.head.parameters()):
            assert torch.equal(p, new)
    assert learner.optimiser.state
    for state in learner.optimiser.state.values():
        assert all((value == 0).all() for value in state.values())
    assert learner.annealed() == 0
    assert learner.n_step() == agent.config.n_step_start
    head = [p.detach().clone() for p in agent.network.head.parameters()]
    for _ in range(2):
        agent._update()
    assert learner.updates == 4  # beyond `until`
    for p, was in zip(agent.network.head.parameters(), head):
        torch.testing.assert_close(p.detach(), was, rtol=0, atol=0.001)
    assert learner.annealed() == 2


def test_measures_leave_no_trace_in_learning():
    one, two = make(), make()
    for agent in (one, two):
        if agent is two:
            numbers = agent.plasticity.diagnostics()
        agent._update()
    for p, q in zip(one.network.parameters(), two.network.parameters()):
        assert torch.equal(p, q)
    assert 0 < numbers["plasticity/effective_rank"] <= 64
    assert 0 < numbers["plasticity/weight_distance"] < 0.1
    assert numbers["plasticity/weight_distance_in_game"] == pytest.approx(
        numbers["plasticity/weight_distance"]
    )


@pytest.mark.parametrize(
    "override", ["plasticity.tau=2", "plasticity.every=0", "plasticity.until=-1", "plasticity=rdo"]
)
def test_bad_values_name_the_key(override):
    with pytest.raises(UserError, match=override.split("=")[0].replace(".", r"[./]")):
        load_config([override])


def test_on_the_core_an_agent_is_judged_by_the_weights_of_now():
    agent = make("backend=event_core", "plasticity=shrink_perturb")
    obs = torch.from_numpy(agent.plasticity._observations(np.random.default_rng(0)).numpy()[:4])
    before = agent.judging_network().encoder(obs).latent
    agent.begin_task(1)
    assert not torch.equal(agent.judging_network().encoder(obs).latent, before)


def test_on_the_core_perturbed_weights_act_at_once():
    """Encoder and head are one network, however long ago it was compiled."""
    agent = make("backend=event_core", "backend.every=1", "plasticity=shrink_perturb")
    agent.backend.acting(agent.learner.updates)
    obs = torch.from_numpy(agent.plasticity._observations(np.random.default_rng(0)).numpy()[:4])
    agent.backend.remembering()
    agent.begin_task(1)
    acting = agent.backend.acting(agent.learner.updates)
    latent = acting.encoder(obs).latent
    assert torch.equal(latent, agent.judging_network().encoder(obs).latent)
    assert torch.equal(latent, agent.backend.remembering().encoder(obs).latent)


def test_on_the_core_a_reset_acts_at_once():
    agent = make("backend=event_core", "plasticity=reset", "plasticity.every=2")
    before = agent.backend.acting(agent.learner.updates)
    obs = torch.from_numpy(agent.plasticity._observations(np.random.default_rng(0)).numpy()[:4])
    old = before.encoder(obs).latent.clone()
    agent._update()
    acting = agent.backend.acting(agent.learner.updates)
    assert torch.equal(acting.encoder(obs).latent, agent.judging_network().encoder(obs).latent)
    assert not torch.equal(acting.encoder(obs).latent, old)


@pytest.mark.parametrize("layer", ["conv2", "hidden"])
def test_a_unit_that_starts_anew_says_nothing_to_the_world_model(encoder, layer):
    agent = make(f"encoder={encoder}", "world_model=latent", "world_model.every=1")
    own = units(agent, layer)
    model, optimiser = agent.model, agent.learner.model_optimiser
    weight = model.state.weight if layer == "conv2" else model.predictor.weight
    before = own.model[0].by_unit(weight).detach().clone()
    strength = own.strength()
    agent.plasticity._restart(own, np.array([3]))
    after = own.model[0].by_unit(weight)
    assert before[3].abs().sum() > 0
    assert after[3].abs().sum() == 0
    assert own.model[0].by_unit(optimiser.state[weight]["exp_avg"])[3].abs().sum() == 0
    changed = (after != before).flatten(1).any(1)
    assert changed.nonzero()[:, 0].tolist() == [3]
    kept = [i for i in range(own.count) if i != 3]
    assert torch.equal(own.strength()[kept], strength[kept])
    outgoing = own.outgoing[0]
    by_hand = outgoing.by_unit(outgoing.parameter.detach()).abs().flatten(1).sum(1)
    assert torch.equal(strength[kept[:1]], by_hand[kept[:1]])  # utility is of the values alone
