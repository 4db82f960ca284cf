"""Importances against closed forms on linear models; several methods are the sum of their own."""

import numpy as np
import pytest
import torch
from torch import nn

from memory.consolidation import Consolidation, ConsolidationConfig, mean_gradients
from memory.consolidation.methods import Evidence


@pytest.fixture
def linear():
    rng = torch.Generator().manual_seed(3)
    module = nn.Linear(5, 4).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    x = torch.randn(70, 5, generator=rng, dtype=torch.float64)
    action = torch.randint(4, (70,), generator=rng)
    return module, x, nn.functional.one_hot(action, 4).double()


def log_pi(out, one_hot):
    return (torch.log_softmax(out[0], 0) * one_hot).sum()


@pytest.mark.parametrize("vectorised", [True, False])
def test_fisher_of_a_linear_softmax_is_the_closed_form(linear, vectorised):
    module, x, one_hot = linear
    weight, bias = mean_gradients(
        module, ["weight", "bias"], log_pi, x, [one_hot], vectorised=vectorised
    )
    delta = one_hot - torch.softmax(module(x), 1).detach()  # d log pi / d logits
    torch.testing.assert_close(weight, (delta**2).T @ x**2 / len(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(bias, (delta**2).mean(0), atol=1e-5, rtol=0)


def test_fisher_does_not_depend_on_the_batch(linear):
    module, x, one_hot = linear
    whole = mean_gradients(module, ["weight"], log_pi, x, [one_hot])[0]
    parts = [
        mean_gradients(module, ["weight"], log_pi, x[i::7], [one_hot[i::7]])[0] for i in range(7)
    ]
    torch.testing.assert_close(whole, sum(parts) / 7, atol=1e-10, rtol=0)


def test_sensitivity_of_a_linear_map_is_the_closed_form(linear):
    module, x, _ = linear
    weight = mean_gradients(module, ["weight"], lambda out: (out[0] ** 2).sum(), x, power=1)[0]
    y = module(x).detach()
    torch.testing.assert_close(weight, 2 * y.abs().T @ x.abs() / len(x), atol=1e-5, rtol=0)


def scalar_module(value):
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def evidence(*values):
    given = lambda: [torch.tensor([[v]]) for v in values]  # noqa: E731
    return Evidence(given, given)


def raw(methods, module, **values):
    values = {"normalise": False, "strength": 2.0} | values
    return Consolidation(methods, ConsolidationConfig(**values), module)


def test_si_of_a_quadratic_descended_by_gradient():
    """Loss w^2 / 2 from w = 2 with step 0.1: omega = sum 0.1 w^2, by hand."""
    module = scalar_module(2.0)
    si = raw(["si"], module, xi=0.5)
    w, omega = 2.0, 0.0
    for _ in range(5):
        module.weight.grad = module.weight.detach().clone()
        si.after_backward(torch.tensor(1.0))
        with torch.no_grad():
            module.weight -= 0.1 * module.weight.grad
        omega += 0.1 * w * w
        w *= 0.9
    si.consolidate(evidence())
    expected = omega / ((2.0 - w) ** 2 + 0.5)
    assert si.methods["si"].importance[0].item() == pytest.approx(2 * expected, abs=1e-5)
    # Its penalty is strength * sum importance (w - w*)^2, without a half: raw() has strength 2.
    assert si.stiffness[0].item() == pytest.approx(2.0 * 2 * expected, abs=1e-5)


def test_si_counts_every_step_once_and_no_move_that_is_not_a_step():
    """As above, but with the state saved after each step and a jump before the third."""
    module = scalar_module(2.0)
    si = raw(["si"], module, xi=0.5)
    w, omega = 2.0, 0.0
    for step in range(5):
        if step == 2:
            si.settle()
            w = 4.0
            nn.init.constant_(module.weight, w)
            si.moved()
        module.weight.grad = module.weight.detach().clone()
        si.after_backward(torch.tensor(1.0))
        with torch.no_grad():
            module.weight -= 0.1 * module.weight.grad
        omega += 0.1 * w * w
        w *= 0.9
        assert si.state_dict()["methods"]["si"]["omega"][0].item() == pytest.approx(omega, rel=1e-5)
    other = raw(["si"], scalar_module(w), xi=0.5)
    other.load_state_dict(si.state_dict())
    for one in (si, other):
        one.consolidate(evidence())
        expected = omega / ((2.0 - w) ** 2 + 0.5)
        assert one.methods["si"].importance[0].item() == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize(("method", "half"), [("ewc", 1.0), ("online_ewc", 1.0), ("mas", 2.0)])
def test_published_lambdas_weigh_as_in_their_papers(method, half):
    """lambda / 2 sum F (w - w*)^2 for EWC, lambda sum F (w - w*)^2 for MAS; raw() has lambda 2."""
    module = scalar_module(1.0)
    held = raw([method], module)
    held.consolidate(evidence(3.0))
    nn.init.constant_(module.weight, 5.0)
    assert held.penalty().item() == pytest.approx(half * 2.0 / 2 * 3.0 * (5 - 1) ** 2)


def test_ewc_gradient_is_that_of_one_quadratic_a_game():
    module = scalar_module(1.0)
    ewc = raw(["ewc"], module)
    ewc.consolidate(evidence(3.0))
    nn.init.constant_(module.weight, 2.0)
    ewc.consolidate(evidence(1.0))
    nn.init.constant_(module.weight, 5.0)
    module.weight.grad = torch.zeros(1, 1)
    ewc.after_backward(torch.tensor(0.0))
    assert module.weight.grad.item() == pytest.approx(2.0 * (3 * (5 - 1) + 1 * (5 - 2)), rel=1e-5)


def test_online_ewc_decays_and_holds_the_newest_weights():
    module = scalar_module(1.0)
    online = raw(["online_ewc"], module, decay=0.5)
    for value, fisher in ((1.0, 4.0), (2.0, 1.0)):
        nn.init.constant_(module.weight, value)
        online.consolidate(evidence(fisher))
    assert online.stiffness[0].item() == pytest.approx(2.0 * (0.5 * 4 + 1))
    assert online.centre[0].item() == pytest.approx(2.0)


def test_normalised_online_ewc_scales_only_what_is_new_and_over_all_tensors_together():
    """F <- gamma F + F_new / mean(F_new); the mean runs over the weights of every tensor."""
    module = nn.Linear(2, 1)  # a weight of two numbers and a bias of one
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.3)  # all of one size: a plain mean
    online = Consolidation(["online_ewc"], ConsolidationConfig(decay=0.5), module)
    for weight, bias in (([3.0, 6.0], [9.0]), ([100.0, 0.0], [200.0])):
        given = lambda w=weight, b=bias: [torch.tensor([w]), torch.tensor(b)]  # noqa: E731
        online.consolidate(Evidence(given, given))
    held = online.methods["online_ewc"].importance
    assert held[0][0].tolist() == pytest.approx([0.5 * 3 / 6 + 1.0, 0.5 * 6 / 6])
    assert held[1].tolist() == pytest.approx([0.5 * 9 / 6 + 2.0])


def test_a_state_saved_in_passing_leaves_no_trace_in_si():
    """Bit for bit: a run that was stopped between two steps goes on as if it had not been."""
    omegas = []
    for saves in (False, True):
        torch.manual_seed(0)
        module = nn.Linear(64, 64)
        si = raw(["si"], module)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(20):
            loss = module(torch.randn(8, 64)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            si.after_backward(loss)
            optimiser.step()
            if saves:
                si.state_dict()
        omegas.append(si.state_dict()["methods"]["si"]["omega"])
    assert all(torch.equal(a, b) for a, b in zip(*omegas))


def test_running_td_loss_is_a_plain_mean_at_first():
    held = raw(["l2"], scalar_module(1.0))
    for loss in (1.0, 3.0):
        held.params[0].grad = torch.zeros(1, 1)
        held.after_backward(torch.tensor(loss))
    assert held.td.item() == pytest.approx(2.0)


def test_methods_add_up_and_bytes_do_not_grow_with_games():
    pulls = []
    for methods in (["online_ewc"], ["l2"], ["online_ewc", "l2"]):
        module = scalar_module(1.0)
        held = raw(methods, module)
        before = held.nbytes()
        held.consolidate(evidence(3.0))
        nn.init.constant_(module.weight, 2.0)
        held.consolidate(evidence(3.0))
        assert held.nbytes() == before
        nn.init.constant_(module.weight, 4.0)
        module.weight.grad = torch.zeros(1, 1)
        held.after_backward(torch.tensor(0.0))
        pulls.append(module.weight.grad.item())
    assert pulls[2] == pytest.approx(pulls[0] + pulls[1], rel=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_normalised_strength_does_not_depend_on_the_scale_of_the_fisher(size):
    module = nn.Linear(3, 1, bias=False)
    module.weight.data = torch.tensor([[1.0, -3.0, 0.1]])  # the important one is large
    held = Consolidation(["ewc"], ConsolidationConfig(strength=1.0, scale=0.1), module)
    held.td.fill_(0.7)
    given = lambda: [size * torch.tensor([[1.0, 2.0, 0.0]])]  # noqa: E731
    held.consolidate(Evidence(given, given))
    module.weight.data *= 1.1  # all weights moved by `scale` of their size
    assert held.penalty().item() == pytest.approx(0.7, rel=1e-4)


def test_weights_nobody_needs_are_free_and_all_stays_finite():
    module = nn.Linear(2, 1, bias=False)
    held = raw(["ewc", "si", "mas"], module)
    nothing = lambda: [torch.tensor([[0.0, 1e-40]])]  # noqa: E731
    held.consolidate(Evidence(nothing, nothing))
    module.weight.grad = torch.zeros(1, 2)
    held.after_backward(torch.tensor(0.0))
    assert np.abs(module.weight.grad.numpy()).max() < 1e-6
    assert torch.isfinite(held.centre[0]).all()


def test_state_goes_round():
    module = scalar_module(1.5)
    held = raw(["si", "ewc"], module)
    held.consolidate(evidence(3.0))
    again = raw(["si", "ewc"], scalar_module(0.0))
    again.load_state_dict(held.state_dict())
    assert again.stiffness[0] == held.stiffness[0]
    assert again.centre[0] == held.centre[0]
    assert again.games == 1
