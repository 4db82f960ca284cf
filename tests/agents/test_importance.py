"""Importances of a whole agent: every encoder, the policy that is meant, no game's own parts."""

import numpy as np
import pytest
import torch

from agents.continual import _PlainForm
from memory.consolidation import mean_gradients
from training.build import build_agent
from training.config import load_config


def make(*overrides, games="[pong,krull]"):
    config = load_config(
        [
            f"sequence.games={games}",
            "experiment=quickstart",
            "agent=reactive",
            "agent.replay_capacity=1000",
            "agent.hidden=16",
            "device=cpu",
            *overrides,
        ]
    )
    return build_agent(config, torch.device("cpu"))


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 4, 84, 84), dtype=np.uint8))


@pytest.mark.parametrize("size", ["der", "fine", "nature", "impala"])
@pytest.mark.parametrize("kind", ["spiking", "conv"])
def test_every_encoder_can_be_measured_and_its_plain_form_says_the_same(kind, size):
    agent = make(f"encoder={kind}", f"encoder.size={size}", "consolidation=[ewc,mas]")
    continual, obs = agent.continual, frames(3)
    measured = continual._sensitivity(obs)
    one_by_one = mean_gradients(
        agent.network, continual.consolidation.names,
        lambda out: (out.q[0] ** 2 * agent.masks[0]).sum(), obs, power=1, vectorised=False,
    )  # fmt: skip
    assert max(m.max() for m in measured) > 0
    for mine, other in zip(measured, one_by_one):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))
    if agent.network.encoder.has_plain_form:
        plain = _PlainForm(agent.network)(obs).q
        torch.testing.assert_close(plain, agent.network(obs).q, rtol=1e-4, atol=1e-5)


def test_fisher_is_of_the_log_policy_on_actions_sampled_from_it():
    """Against (d log pi(a) / d w)^2 by one backward pass a sample; no TD loss, no masked action."""
    agent = make("encoder=conv", "consolidation=[ewc]", "stiffness.temperature=0.5",
                 "agent.atoms=1")  # fmt: skip
    continual, obs = agent.continual, frames(6)
    state = continual.torch_rng.get_state()
    names = continual.consolidation.names
    fisher = dict(zip(names, continual._fisher(obs)))
    mask = agent.masks[agent.game]
    assert not mask.all()
    with torch.no_grad():
        scores = agent.network(obs).q / 0.5
    policy = torch.softmax(scores.masked_fill(~mask, -torch.inf), 1)
    action = torch.multinomial(
        policy, 1, generator=torch.Generator().set_state(state)
    )[:, 0]  # fmt: skip
    assert mask[action].all()
    wanted = {n: torch.zeros_like(v) for n, v in fisher.items()}
    parameters = dict(agent.network.named_parameters())
    for m in range(len(obs)):
        logits = (agent.network(obs[m : m + 1]).q[0] / 0.5)[mask]
        chosen = int(mask[: action[m]].sum())  # place among the actions that exist
        value = torch.log_softmax(logits, 0)[chosen]
        for name, g in zip(names, torch.autograd.grad(value, [parameters[n] for n in names],
                                                      allow_unused=True)):  # fmt: skip
            if g is not None:
                wanted[name] += g**2 / len(obs)
    for name in names:
        scale = float(wanted[name].abs().max())
        torch.testing.assert_close(fisher[name], wanted[name], rtol=1e-3, atol=1e-5 * scale + 1e-12)
    # Adding a state's value to all scores changes no policy: its stream matters to nothing.
    assert fisher["head.value.weight"].abs().max() < 1e-6 * fisher["head.advantage.weight"].max()


def test_nothing_that_is_held_belongs_to_one_game():
    few, many = make("consolidation=[ewc]"), make("consolidation=[ewc]", games="[pong,krull,alien]")
    shapes = [[p.shape for p in a.continual.consolidation.params] for a in (few, many)]
    assert shapes[0] == shapes[1]
    encoder = make("consolidation=[ewc]", "stiffness.parts=encoder").continual.consolidation
    assert encoder.names
    assert all(name.startswith("encoder.") for name in encoder.names)
