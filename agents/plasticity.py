"""Staying able to learn: units that have died or never mattered start anew; and the measures.

    redo                dormant units, every `every` updates (Sokar 2023, algorithm 1)
    continual_backprop  mature units of the lowest utility, at a fixed rate (Dohare 2024)
    shrink_perturb      all weights move towards fresh ones when a task begins (Ash & Adams 2020, in
                        the convex form of BBF, Schwarzer 2023)
    reset               every `every` updates the head starts anew and the encoder moves towards
                        fresh weights (Nikishin 2022; BBF), for more updates a step than a network
                        can take without

A unit starts anew with the incoming weights that a unit of its layer, drawn at random, had at the
beginning of the run, outgoing weights of zero, and no memory in the optimiser. What the network
computes changes only by the loss of that unit's contribution (and, in a normalised layer, by its
share of the mean and the spread).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from agents.network import QNetwork
from agents.units import Units, activity, units_of
from errors import require

if TYPE_CHECKING:
    from agents.agent import Agent

KINDS = ("none", "redo", "continual_backprop", "shrink_perturb", "reset")
RANK_SHARE = 0.99  # effective rank: directions that hold this share (Kumar 2021, delta = .01)


@dataclass(frozen=True)
class PlasticityConfig:
    """Group `plasticity`."""

    kind: str = "none"  # none | redo | continual_backprop | shrink_perturb | reset
    # Optimiser updates between two looks (redo; Sokar 2023: 1,000) or resets (configs/: 40,000).
    every: int = 1_000
    # reset: updates of the run after which there is none (BBF: 100,000); ours so that the last of
    # three leaves two fifths of 200,000
    until: int = 120_000
    # Share of the layer's mean activity at or below which a unit is dormant (Sokar 2023: .025);
    # also that of the measure plasticity/dormant_share, whatever the kind.
    tau: float = 0.025
    rate: float = 1e-4  # continual_backprop: share of mature units replaced an update (Dohare 2024)
    maturity: int = 10_000  # updates before a unit may be replaced (Dohare 2024)
    decay: float = 0.99  # of the running utility, a measurement (Dohare 2024)
    look: int = 20  # updates between two measurements of utility; ours, for time (Dohare 2024: 1)
    # Share of the old weights kept, the rest is fresh: of all (shrink_perturb), of the encoder's
    # (reset; configs/: 0.5).
    shrink: float = 0.8
    samples: int = 64  # observations that activity is measured on

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"plasticity.kind={self.kind} is not one of {', '.join(KINDS)}")
        for key in ("every", "look", "samples"):
            require(getattr(self, key) >= 1, f"plasticity.{key} must be at least 1")
        for key in ("maturity", "until"):
            require(getattr(self, key) >= 0, f"plasticity.{key} must not be negative")
        for key in ("tau", "rate", "shrink"):
            value = getattr(self, key)
            require(0 <= value <= 1, f"plasticity.{key}={value} must lie between 0 and 1")
        require(0 <= self.decay < 1, f"plasticity.decay={self.decay} must lie in [0, 1)")


class Plasticity:
    """Keeps an agent's network plastic, and measures how plastic it is.

    Args:
        config: values.
        agent: its `network`, `learner` and `replay` are read and written.
        fresh: makes a network like the agent's from a seed.
        seed: integer; sampling and drawing have generators of their own.
    """

    def __init__(
        self, config: PlasticityConfig, agent: Agent, fresh: Callable[[int], QNetwork], seed: int
    ) -> None:
        self.config, self.agent, self.fresh = config, agent, fresh
        acts, measures = np.random.SeedSequence([seed, 1]).spawn(2)
        self.rng = np.random.default_rng(acts)
        self.measure_rng = np.random.default_rng(measures)  # logging must not change learning
        self.layers = units_of(agent.network, agent.model)
        # The weights at the start: made from the run's seed, so a resumed run has the same.
        self.initial = {id(p): p.detach().clone() for p in agent.network.parameters()}
        self.utility = {u.name: torch.zeros(u.count, device=agent.device) for u in self.layers}
        self.age = {u.name: np.zeros(u.count, np.int64) for u in self.layers}  # updates
        self.looks = {u.name: np.zeros(u.count, np.int64) for u in self.layers}
        self.owed = {u.name: 0.0 for u in self.layers}  # replacements, a running fraction
        self.begun = [p.detach().clone() for p in agent.network.parameters()]  # of this game
        self.reset_units = 0  # so far
        self.tasks = 0  # begun so far

    # -- when it acts ---------------------------------------------------------------------------
    def begin_task(self) -> None:
        self.tasks += 1
        if self.config.kind == "shrink_perturb" and self.tasks > 1:
            self._towards_fresh(encoder=self.config.shrink, head=self.config.shrink)
        for mine, p in zip(self.begun, self.agent.network.parameters()):
            mine.copy_(p.detach())

    def after_update(self) -> None:
        c, updates = self.config, self.agent.learner.updates
        if c.kind == "redo" and updates % c.every == 0:
            self._recycle_dormant()
        elif c.kind == "continual_backprop" and updates % c.look == 0:
            self._replace_useless()
        elif c.kind == "reset" and updates % c.every == 0 and updates <= c.until:
            self._reset()

    def _recycle_dormant(self) -> None:
        means = activity(self.agent.network, self._observations(self.rng)).units
        for units in self.layers:
            self._restart(units, np.flatnonzero(dormant(means[units.name], self.config.tau)))

    def _replace_useless(self) -> None:
        """Utility: running mean of |activation| times the sum of |outgoing weights|, corrected for
        its start at zero (Dohare 2024, eq. 1 to 3, contribution utility)."""
        c = self.config
        means = activity(self.agent.network, self._observations(self.rng)).units
        for units in self.layers:
            name = units.name
            self.age[name] += c.look
            self.looks[name] += 1
            self.utility[name].lerp_(means[name] * units.strength(), 1 - c.decay)
            mature = self.age[name] > c.maturity
            self.owed[name] += c.rate * c.look * mature.sum()
            count = min(int(self.owed[name]), int(mature.sum()))
            if not count:
                continue
            self.owed[name] -= count
            fair = self.utility[name].cpu().numpy() / (1 - c.decay ** self.looks[name])
            worst = np.argsort(np.where(mature, fair, np.inf), kind="stable")[:count]
            self._restart(units, worst)
            self.utility[name][worst] = 0
            self.age[name][worst] = self.looks[name][worst] = 0

    @torch.no_grad()
    def _restart(self, units: Units, which: np.ndarray) -> None:
        """The units with indices `which` start anew."""
        if not len(which):
            return
        self._about_to_move()
        learner = self.agent.learner
        state = learner.optimiser.state
        of_model = learner.model_optimiser.state if learner.model_optimiser else {}
        donors = self.rng.integers(units.count, size=len(which))
        for leads in units.incoming:
            p = leads.parameter
            leads.by_unit(p)[which] = leads.by_unit(self.initial[id(p)])[donors]
            for moment in _moments(state, p):
                leads.by_unit(moment)[which] = 0
        for leads in (*units.outgoing, *units.noise, *units.model):
            p = leads.parameter
            for tensor in (p, *_moments(state, p), *_moments(of_model, p)):
                view = leads.by_unit(tensor)
                own = which[(which >= leads.first) & (which < leads.first + len(view))]
                view[own - leads.first] = 0
        self.reset_units += len(which)
        self._moved()

    def _reset(self) -> None:
        """The head starts anew and the encoder by its share; the optimiser forgets both, and the
        schedules of n, gamma and the target network begin anew. A world model stays as it is."""
        learner = self.agent.learner
        self._towards_fresh(encoder=self.config.shrink, head=0.0)
        for state in learner.optimiser.state.values():
            for value in state.values():
                value.zero_()  # in place: a CUDA graph writes to these very tensors
        learner.anneal_from = learner.updates

    @torch.no_grad()
    def _towards_fresh(self, encoder: float, head: float) -> None:
        """w <- kept w + (1 - kept) fresh, `encoder` and `head` the shares kept, in the online and
        the target network."""
        self._about_to_move()
        fresh = self.fresh(int(self.rng.integers(2**31))).to(self.agent.device)
        for network in (self.agent.network, self.agent.learner.target):
            for part, kept in (("encoder", encoder), ("head", head)):
                olds, news = (getattr(n, part).parameters() for n in (network, fresh))
                for p, new in zip(olds, news):
                    p.lerp_(new, 1 - kept)
        self._moved()

    def _about_to_move(self) -> None:
        if self.agent.learner.consolidation is not None:
            self.agent.learner.consolidation.settle()

    def _moved(self) -> None:
        if self.agent.learner.consolidation is not None:
            self.agent.learner.consolidation.moved()
        if self.agent.backend is not None:
            self.agent.backend.moved()

    def _observations(self, rng: np.random.Generator) -> Tensor:
        """uint8 [M, 4, 84, 84] out of replay."""
        batch = self.agent.replay.sample(self.config.samples, 1, rng)
        return torch.from_numpy(np.array(batch.obs_tm1)).to(self.agent.device)

    # -- measures -------------------------------------------------------------------------------
    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """Of the online network, on observations of replay."""
        agent = self.agent
        if not len(agent.replay):
            return {}
        seen = activity(agent.network, self._observations(self.measure_rng))
        dead = {name: dormant(mean, self.config.tau) for name, mean in seen.units.items()}
        params = list(agent.network.parameters())
        start = [self.initial[id(p)] for p in params]
        length = torch.stack(torch._foreach_norm(start)).norm()  # of the initial weights

        def distance(origin: list[Tensor]) -> float:
            moved = torch._foreach_norm(torch._foreach_sub(params, origin))
            return (torch.stack(moved).norm() / length).item()

        out = {
            "plasticity/dormant_share": float(np.concatenate(list(dead.values())).mean()),
            "plasticity/effective_rank": float(effective_rank(seen.latent)),
            "plasticity/weight_distance": distance(start),
            "plasticity/weight_distance_in_game": distance(self.begun),
        }
        out |= {f"plasticity/dormant_share/{name}": float(d.mean()) for name, d in dead.items()}
        if self.config.kind in ("redo", "continual_backprop"):
            out["plasticity/reset_units"] = float(self.reset_units)
        return out

    # -- state ----------------------------------------------------------------------------------
    def state_dict(self) -> dict:
        return {
            "rng": self.rng.bit_generator.state,
            "measure_rng": self.measure_rng.bit_generator.state,
            "utility": {k: v.clone() for k, v in self.utility.items()},
            "age": copy.deepcopy(self.age),
            "looks": copy.deepcopy(self.looks),
            "owed": {k: float(v) for k, v in self.owed.items()},
            "reset_units": self.reset_units,
            "tasks": self.tasks,
            "begun": list(self.begun),
        }

    def load_state_dict(self, state: dict) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.measure_rng.bit_generator.state = state["measure_rng"]
        for name in self.utility:
            self.utility[name].copy_(state["utility"][name])
            self.age[name][:] = state["age"][name]
            self.looks[name][:] = state["looks"][name]
            self.owed[name] = state["owed"][name]
        self.reset_units, self.tasks = state["reset_units"], state["tasks"]
        for mine, saved in zip(self.begun, state["begun"], strict=True):
            mine.copy_(saved)


def dormant(mean: Tensor, tau: float) -> np.ndarray:
    """[H] bool: mean activity [H] over that of the layer is at most tau (Sokar 2023, eq. 1)."""
    return (mean <= tau * mean.mean()).cpu().numpy()


def effective_rank(features: Tensor, share: float = RANK_SHARE) -> int:
    """Fewest singular values of features [B, L] that hold `share` of their sum (Kumar 2021)."""
    values = torch.linalg.svdvals(features.float().cpu())
    total = values.sum()
    if total == 0:
        return 0
    return int((values.cumsum(0) < share * total).sum()) + 1


def _moments(state: dict, p: Tensor) -> list[Tensor]:
    """Adam's running moments of a parameter; none before its first step."""
    return [v for k, v in state.get(p, {}).items() if k in ("exp_avg", "exp_avg_sq")]
