"""Several methods at once. Their penalties are quadratics, so their sum is one quadratic: however
many methods and games, a training step pays for one multiply-add over the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memory.consolidation.config import ConsolidationConfig
from memory.consolidation.kernels import Flat, pull
from memory.consolidation.methods import MAKERS, Evidence

TD_RATE = 0.01  # share of the newest TD loss in the running mean, which starts as a plain one


class Consolidation:
    """Holds the weights of `module` where earlier games need them.

        loss.backward()
        consolidation.after_backward(td_loss)      # adds the penalty's gradient
        optimiser.step()
        consolidation.consolidate(evidence)        # a game ends

    The penalty goes in as its gradient, stiffness * (w - centre): autograd would give the same at
    several times the cost.
    """

    def __init__(
        self, methods: Sequence[str], config: ConsolidationConfig, module: nn.Module
    ) -> None:
        self.config = config
        prefix = "encoder." if config.parts == "encoder" else ""
        named = [
            (n, p) for n, p in module.named_parameters() if p.requires_grad and n.startswith(prefix)
        ]
        self.names = [n for n, _ in named]
        self.params = [p for _, p in named]
        self.methods = {name: MAKERS[name](self.params, config) for name in methods}
        self.stiffness = [torch.zeros_like(p) for p in self.params]
        self.centre = [p.detach().clone() for p in self.params]
        self.td = torch.zeros((), device=self.params[0].device)  # running TD loss
        self.steps = torch.zeros_like(self.td)  # TD losses seen; a CUDA graph counts on as well
        self.games = 0  # consolidations so far
        self._views = Flat()

    def after_backward(self, td_loss: Tensor) -> None:
        grads = [p.grad for p in self.params]
        self.steps.add_(1)
        self.td.lerp_(td_loss.detach(), self.steps.reciprocal().clamp_min(TD_RATE))
        path = next((m.path for m in self.methods.values() if m.path is not None), None)
        weights = [p.detach() for p in self.params]
        pull(grads, weights, self.stiffness, self.centre, path, self._views)

    def settle(self) -> None:
        """Count the optimiser's last step now: the weights are about to be set by other means, or
        the state to be saved."""
        for method in self.methods.values():
            method.settle(self.params)

    def moved(self) -> None:
        """Weights were set by other means than the optimiser's, after a call of `settle`."""
        for method in self.methods.values():
            method.moved(self.params)

    def consolidate(self, evidence: Evidence) -> None:
        """A game ends: every method measures, and the sum of their quadratics is made anew."""
        for method in self.methods.values():
            method.consolidate(self.params, evidence)
        self.games += 1
        factor = self._factor()
        for i, p in enumerate(self.params):
            parts = [(m.importance[i], m.anchor[i]) for m in self.methods.values()]
            total = sum(f for f, _ in parts)
            pull = sum(f * (a - p.detach()) for f, a in parts)  # around p: nothing cancels
            self.centre[i].copy_(p.detach() + pull / total.clamp_min(1e-30))
            self.stiffness[i].copy_(factor * total)

    def _factor(self) -> float:
        """What turns 1/2 sum importance (w - anchor)^2 into the penalty."""
        c = self.config
        if not c.normalise:
            return c.strength
        size = float(sum((p.detach().double() ** 2).sum() for p in self.params))
        return 2 * c.strength * float(self.td) / (c.scale**2 * max(size, 1e-30))

    @torch.no_grad()
    def penalty(self) -> Tensor:
        """1/2 sum stiffness (w - centre)^2, the part of the penalty that depends on w."""
        shift = torch._foreach_sub(self.params, self.centre)
        terms = torch._foreach_mul(torch._foreach_mul(shift, shift), self.stiffness)
        return 0.5 * sum(t.sum() for t in terms)

    def nbytes(self) -> int:
        """Bytes that consolidation holds; constant in the number of games."""
        held = [self.stiffness, self.centre]
        for method in self.methods.values():
            held += [*method.state_dict().values(), method.path.gradient if method.path else []]
        return sum(t.numel() * t.element_size() for group in held for t in group)

    def state_dict(self) -> dict:
        self.settle()
        return {
            "methods": {name: m.state_dict() for name, m in self.methods.items()},
            "stiffness": list(self.stiffness),
            "centre": list(self.centre),
            "td": self.td.clone(),
            "steps": int(self.steps),
            "games": self.games,
        }

    def load_state_dict(self, state: dict) -> None:
        for name, method in self.methods.items():
            method.load_state_dict(state["methods"][name])
        for own, key in ((self.stiffness, "stiffness"), (self.centre, "centre")):
            for tensor, saved in zip(own, state[key], strict=True):
                tensor.copy_(saved)
        self.td.copy_(state["td"])
        self.steps.fill_(state["steps"])
        self.games = state["games"]
