"""The methods. Each says how much every weight matters and where it is held; the rest is shared.

Its hooks are `settle(params)`, `moved(params)` and `consolidate(params, evidence)`; what
it knows stands in `importance` and `anchor`, lists of tensors like the weights, whose penalty is
1/2 sum importance (w - anchor)^2. Memory does not grow with the number of games.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memory.consolidation.config import ConsolidationConfig
from memory.consolidation.kernels import Path, follow_path


class Evidence(NamedTuple):
    """What a finished game can tell; measured only when a method asks."""

    fisher: Callable[[], list[Tensor]]  # E (d log pi / d w)^2
    sensitivity: Callable[[], list[Tensor]]  # E |d ||Q||^2 / d w|


class Method:
    """Importances add up, the anchor is where the last game ended."""

    decay = 1.0
    # What turns the published lambda sum importance (w - w*)^2 into lambda / 2 sum ...; for raw
    # importances alone, since normalised ones are scaled anyway.
    raw_factor = 1.0
    # Where a method needs the gradients of the losses alone, before any penalty and clipping, and
    # the steps that the optimiser makes: each backward pass keeps this up to date.
    path: Path | None = None

    def __init__(self, params: Sequence[Tensor], config: ConsolidationConfig) -> None:
        self.config = config
        self.importance = [torch.zeros_like(p) for p in params]
        self.anchor = [p.detach().clone() for p in params]

    def settle(self, params: Sequence[Tensor]) -> None:
        """Count what the optimiser's last step did; a second call changes nothing."""

    def moved(self, params: Sequence[Tensor]) -> None:
        """Weights were set by other means than the optimiser's."""

    def consolidate(self, params: Sequence[Tensor], evidence: Evidence) -> None:
        """A game ends."""
        new = self._scaled(self.measure(params, evidence), params)
        torch._foreach_mul_(self.importance, self.decay)
        torch._foreach_add_(self.importance, new)
        for anchor, p in zip(self.anchor, params):
            anchor.copy_(p.detach())

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        """Raw importance of the weights for the game that ends."""
        raise NotImplementedError

    def _scaled(self, raw: list[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
        """Scaled so that sum F w^2 = sum w^2 over all weights together, if so configured: a mean
        over the squared weights, since important weights are large ones, in trained agents by
        factors of three to six. Only what is new is scaled, never a sum with what was scaled
        before."""
        if not self.config.normalise:
            return [self.raw_factor * r for r in raw]
        squares = [p.detach().double().square() for p in params]
        size = sum(s.sum() for s in squares).clamp_min(1e-30)
        mean = sum((r * s).sum() for r, s in zip(raw, squares)) / size
        return [r / mean.clamp_min(1e-30).to(r.dtype) for r in raw]

    def state_dict(self) -> dict:
        """The tensors of `_names`, by name."""
        return {name: list(getattr(self, name)) for name in self._names()}

    def load_state_dict(self, state: dict) -> None:
        for name in self._names():
            for own, saved in zip(getattr(self, name), state[name], strict=True):
                own.copy_(saved)

    def _names(self) -> tuple[str, ...]:
        return ("importance", "anchor")


class EWC(Method):
    """One quadratic a game (Kirkpatrick 2017, eq. 3, and Huszar 2018 on several games).

    sum_k F_k (w - w_k)^2 = (sum_k F_k) (w - m)^2 + constant with m the F-weighted mean of the w_k:
    one importance and one centre carry all games.
    """

    def consolidate(self, params: Sequence[Tensor], evidence: Evidence) -> None:
        new = self._scaled(self.measure(params, evidence), params)
        for total, centre, f, p in zip(self.importance, self.anchor, new, params):
            total += f
            share = torch.where(total > 0, f / total.clamp_min(1e-30), 1.0)
            centre.lerp_(p.detach(), share)

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        return evidence.fisher()


class OnlineEWC(Method):
    """F <- gamma F + F_new, held at the newest weights (Schwarz 2018, section 4)."""

    def __init__(self, params: Sequence[Tensor], config: ConsolidationConfig) -> None:
        super().__init__(params, config)
        self.decay = config.decay

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        return evidence.fisher()


class SynapticIntelligence(Method):
    """Share of each weight in the fall of the loss along the path (Zenke 2017, eq. 3 to 5).

    omega = -sum gradient * step; importance += max(0, omega) / ((w_end - w_start)^2 + xi).
    """

    raw_factor = 2.0  # eq. 4 has no half

    def __init__(self, params: Sequence[Tensor], config: ConsolidationConfig) -> None:
        super().__init__(params, config)
        self.omega = [torch.zeros_like(p) for p in params]
        self.before = [p.detach().clone() for p in params]
        self.start = [p.detach().clone() for p in params]
        gradient = [torch.zeros_like(p) for p in params]
        self.path = Path(self.omega, gradient, self.before)

    def settle(self, params: Sequence[Tensor]) -> None:
        follow_path(self.path, [p.detach() for p in params])

    def moved(self, params: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.before, [p.detach() for p in params])

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        self.settle(params)
        raw = []
        for omega, start, p in zip(self.omega, self.start, params):
            raw.append(omega.clamp_min(0) / ((p.detach() - start) ** 2 + self.config.xi))
            omega.zero_()
            start.copy_(p.detach())
        return raw

    def _names(self) -> tuple[str, ...]:
        return (*super()._names(), "omega", "before", "start")


class MAS(Method):
    """Sensitivity of the squared norm of the outputs (Aljundi 2018, eq. 2)."""

    raw_factor = 2.0  # its loss has no half

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        return evidence.sensitivity()


class L2(Method):
    """All weights matter alike; the importance is one, however many games there were."""

    decay = 0.0

    def measure(self, params: Sequence[Tensor], evidence: Evidence) -> list[Tensor]:
        return [torch.ones_like(p) for p in params]


MAKERS = {
    "ewc": EWC,
    "online_ewc": OnlineEWC,
    "si": SynapticIntelligence,
    "mas": MAS,
    "l2": L2,
}
