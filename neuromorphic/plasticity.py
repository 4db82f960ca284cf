"""Learning on the core, without backpropagation: pair STDP and reward-modulated STDP.

Pair STDP with traces (Morrison, Diesmann & Gerstner 2008, "Phenomenological models of synaptic
plasticity", section 4.1):

    x <- (1 - 1/tau+) x + s_pre            y <- (1 - 1/tau-) y + s_post
    dw = A+ f+(w) x s_post - A- f-(w) y s_pre

Reward-modulated (Florian 2007, MSTDPET, eqs. 25-27; Lava's R-STDP): the same change goes into an
eligibility trace of the synapse instead, and a reward r turns that into weight:

    e <- (1 - 1/tau_e) e + dw              w <- w + eta r e

Choices that the papers leave open, fixed here:
- Decay is 1 - 1/tau, not exp(-1/tau), as an integer: dec(x, round(4096 / tau)), which rounds
  toward zero like every decay of the chip. So a time constant is 4096 / k for a whole k: met
  within 3 % up to 240 steps and within 13 % up to 1,000.
- A pre spike counts as before the post spike that it causes in the same step: x already holds
  s_pre when s_post reads it; y does not yet hold s_post when s_pre reads it.
- Where outputs compete, a neuron that lost to the winner of a step gets dw = -A_lost x (ours): the
  changes of all outputs then nearly sum to zero for each input, so that an input which is always
  active learns nothing from an action's mere frequency (the covariance of Williams 1992).
- Everything is an integer: traces with 12 fractional bits, eligibility with 16, weights with 16
  below the 8-bit level that the synapse delivers. Weights stay within +-127 levels, eligibility
  within +-2^31; clipped updates of both are counted.

Work follows events: a pre spike changes its row, a post spike its column; only eligibility decays
everywhere, and only while there is any. All of it is counted in the same ledger, what no price is
known for too: rewards broadcast to the synapses, losers that are reset, random drives.

Shapes: I inputs, O outputs, T time steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ledger import LAYER_EVENTS, LEARNING_EVENTS, READOUT_EVENTS, Ledger
from .lif import DRIVE_SHIFT, VTH_MAX, LifParams, LifState, LifStep, dec

TRACE_ONE = 1 << 12  # what one spike adds to a trace
LEVEL_BITS = 16  # fractional bits of a weight below its level
LEVEL_MAX = 127
RATE_ONE = 1 << 16  # fixed point of amplitudes and rewards
ELIGIBILITY_MAX = 1 << 31  # products with a reward stay below 2^62
_W_MAX = LEVEL_MAX << LEVEL_BITS
_CLIPS = ("weight_clip", "eligibility_clip")


@dataclass(frozen=True)
class PlasticityConfig:
    """Time constants in steps; amplitudes in weight levels per pair of coincident spikes.

    rule: "stdp" (weights move at once) | "rstdp" (through eligibility and reward) | "none".
    bounds: "hard" (f = 1) | "soft" (f+ = (max - w) / 2 max, f- = (w + max) / 2 max).
    Defaults of the time constants: Florian 2007 (20, 20 and 25 ms at 1 ms a step).
    """

    rule: str = "rstdp"
    tau_plus: float = 20.0
    tau_minus: float = 20.0
    tau_eligibility: float = 25.0
    a_plus: float = 1.0
    a_minus: float = 1.0
    a_lost: float = 0.0  # onto neurons that lost to a winner; 1 / (outputs - 1) balances a_plus = 1
    learning_rate: float = 1.0  # eta
    bounds: str = "hard"

    def __post_init__(self) -> None:
        if self.rule not in ("stdp", "rstdp", "none"):
            raise ValueError(f"rule={self.rule!r} is none of 'stdp', 'rstdp', 'none'")
        if self.bounds not in ("hard", "soft"):
            raise ValueError(f"bounds={self.bounds!r} is neither 'hard' nor 'soft'")
        for name in ("tau_plus", "tau_minus", "tau_eligibility"):
            if not 1.0 <= getattr(self, name) <= 4096.0:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 1..4096 steps")
        for name in ("a_plus", "a_minus", "a_lost", "learning_rate"):
            # beyond this the 64-bit products could overflow
            if not 0.0 <= getattr(self, name) <= 127.0:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0..127")


def decay_constant(tau: float) -> int:
    """k of dec(x, k) for x <- (1 - 1/tau) x."""
    return round(4096 / tau)


def fixed(value: float) -> int:
    return round(value * RATE_ONE)


def toward_zero(x: np.ndarray, bits: int) -> np.ndarray:
    """x / 2^bits, rounded toward zero."""
    return np.sign(x) * (np.abs(x) >> bits)


class PlasticSynapses:
    """Weights [I, O] with their traces: the rule alone, no neurons.

    >>> synapses = PlasticSynapses(PlasticityConfig(rule="stdp"), np.zeros((2, 1)))
    >>> synapses.learn(pre=np.array([True, False]), post=np.array([True]))
    >>> synapses.levels.ravel().tolist()          # the causing input gained one level
    [1, 0]
    """

    def __init__(self, config: PlasticityConfig, levels: np.ndarray):
        """levels [I, O]: initial weights in levels, -127..127 (fractions are kept)."""
        levels = np.asarray(levels, np.float64)
        if levels.ndim != 2 or np.abs(levels).max(initial=0) > LEVEL_MAX:
            raise ValueError(f"levels must be [inputs, outputs] within +-{LEVEL_MAX}")
        self.config = config
        self.weight = np.rint(levels * (1 << LEVEL_BITS)).astype(np.int64)
        self.eligibility = np.zeros(levels.shape, np.int64)
        self.pre_trace = np.zeros(levels.shape[0], np.int64)
        self.post_trace = np.zeros(levels.shape[1], np.int64)
        self._eligible = False
        self.counts = dict.fromkeys((*LEARNING_EVENTS, *_CLIPS), 0)

    @property
    def levels(self) -> np.ndarray:
        """int64 [I, O]: what the synapses deliver, floor of the weights."""
        return self.weight >> LEVEL_BITS

    def learn(self, pre: np.ndarray, post: np.ndarray, lost: np.ndarray | None = None) -> None:
        """One time step: spikes pre bool [I], post bool [O] of the same step.

        lost: bool [O], outputs that a winner's spike reset.
        """
        config = self.config
        if config.rule == "none":
            return
        # Of a core's uint8 spikes, 0 and 1 would be taken for indices.
        pre, post = np.asarray(pre, bool), np.asarray(post, bool)
        lost = None if lost is None else np.asarray(lost, bool)
        self.pre_trace = dec(self.pre_trace, decay_constant(config.tau_plus))
        self.post_trace = dec(self.post_trace, decay_constant(config.tau_minus))
        self.pre_trace[pre] += TRACE_ONE
        self.counts["trace_update"] += len(pre) + len(post)
        if self._eligible:
            self.eligibility = dec(self.eligibility, decay_constant(config.tau_eligibility))
            self.counts["eligibility_update"] += self.eligibility.size
            self._eligible = bool(self.eligibility.any())
        # amplitudes have 16 fractional bits, traces 12; a change has 16, as weights do
        if config.a_minus:
            rows = -fixed(config.a_minus) * self.post_trace[None, :]  # [1, O]
            self._change(np.ix_(pre, np.ones(len(post), bool)), rows, upward=False)
        if config.a_plus:
            columns = fixed(config.a_plus) * self.pre_trace[:, None]  # [I, 1]
            self._change(np.ix_(np.ones(len(pre), bool), post), columns, upward=True)
        if lost is not None and config.a_lost:
            down = -fixed(config.a_lost) * self.pre_trace[:, None]  # [I, 1]
            self._change(np.ix_(np.ones(len(pre), bool), lost), down, upward=False)
        self.post_trace[post] += TRACE_ONE

    def reward(self, reward: float) -> None:
        """Turn eligibility into weight: w <- w + eta r e. |reward| <= 127."""
        if self.config.rule != "rstdp":
            raise ValueError(f"rule {self.config.rule!r} does not use a reward; use rule='rstdp'")
        if not abs(reward) <= 127.0:
            raise ValueError(f"reward={reward} must lie in -127..127; clip it")
        self.counts["reward_signal"] += 1
        factor = fixed(reward * self.config.learning_rate)
        if factor == 0 or not self._eligible:
            return
        # 16 fractional bits each: the product has 32, a weight 16
        self._add(
            np.ix_(*map(np.arange, self.weight.shape)), toward_zero(self.eligibility * factor, 16)
        )
        self.counts["weight_update"] += self.weight.size

    def forget(self) -> None:
        """Zero all traces and eligibility: a new episode."""
        for array in (self.eligibility, self.pre_trace, self.post_trace):
            array[:] = 0
        self._eligible = False

    def settle(self) -> None:
        """Zero the traces of spikes and keep eligibility: a new decision of the same episode."""
        self.pre_trace[:] = 0
        self.post_trace[:] = 0

    def _change(self, where: tuple, amount: np.ndarray, upward: bool) -> None:
        """STDP change `amount` (28 fractional bits, broadcast) of the synapses `where`."""
        old = self.weight[where]
        if old.size == 0:
            return
        change = np.broadcast_to(toward_zero(amount, 12), self.weight.shape)[where]
        if self.config.bounds == "soft":
            room = (_W_MAX - old if upward else old + _W_MAX) >> LEVEL_BITS  # 0..254 levels
            change = np.sign(change) * (np.abs(change) * room // (2 * LEVEL_MAX))
        self.counts["stdp_update"] += old.size
        if self.config.rule == "stdp":
            self._add(where, change)
            return
        free = self.eligibility[where] + change
        held = np.clip(free, -ELIGIBILITY_MAX, ELIGIBILITY_MAX)
        self.counts["eligibility_clip"] += int((free != held).sum())
        self.eligibility[where] = held
        self._eligible |= bool(held.any())

    def _add(self, where: tuple, change: np.ndarray) -> None:
        free = self.weight[where] + change
        held = np.clip(free, -_W_MAX, _W_MAX)
        self.counts["weight_clip"] += int((free != held).sum())
        self.weight[where] = held

    def state_dict(self) -> dict:
        names = ("weight", "eligibility", "pre_trace", "post_trace")
        arrays = {name: getattr(self, name).copy() for name in names}
        return {**arrays, "eligible": self._eligible, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict) -> None:
        for name in ("weight", "eligibility", "pre_trace", "post_trace"):
            value = np.array(state[name], np.int64)
            if value.shape != getattr(self, name).shape:
                raise ValueError(f"{name} has shape {value.shape}, not {getattr(self, name).shape}")
            setattr(self, name, value)
        self._eligible = bool(state["eligible"])
        self.counts = {name: int(n) for name, n in state["counts"].items()}


class PlasticReadout:
    """A layer of O integer LIF neurons behind plastic synapses: an actor that learns on the core.

        action = readout.act(spikes, rng)       # spikes bool [T, I] of one decision
        readout.reward(r)                       # whenever it comes; eligibility bridges the delay

    Winner-take-all: of the neurons above threshold in a step only the one with the highest
    membrane fires, and it resets all others, so that eligibility names one action. Exploration is
    a random integer drive for each neuron, drawn once a decision from a Gumbel distribution of
    scale `noise`: the winner of a step is then a sample from the softmax of drive / noise, which
    never stops exploring, however far the drives are apart.
    """

    def __init__(
        self,
        synapses: PlasticSynapses,
        threshold: int,
        leak: float = 0.9,
        noise: int = 0,
    ):
        """threshold, noise: in units of drive (one level and one spike is one unit)."""
        if not 0 <= threshold <= VTH_MAX:
            raise ValueError(f"threshold={threshold} must lie in 0..{VTH_MAX}")
        self.synapses, self.noise = synapses, noise
        dv = int(np.clip(np.rint((1 - leak) * 4096), 0, 4095))
        self._step = LifStep(LifParams(du=4095, dv=dv, vth=threshold))
        self._state = LifState.zeros(self.outputs)
        self._layer = dict.fromkeys(LAYER_EVENTS, 0)
        self._other = dict.fromkeys(READOUT_EVENTS, 0)
        self.decisions = 0
        self.time_steps = 0

    @property
    def outputs(self) -> int:
        return self.synapses.weight.shape[1]

    def act(self, spikes: np.ndarray, rng: np.random.Generator) -> int:
        """One decision; membranes start at zero. Most spikes win, then the membrane, then rng."""
        spikes = np.asarray(spikes, bool)
        if spikes.ndim != 2 or spikes.shape[1] != self.synapses.weight.shape[0]:
            raise ValueError(f"spikes {spikes.shape} are not [T, {self.synapses.weight.shape[0]}]")
        self._state = LifState.zeros(self.outputs)
        noise = np.rint(self.noise * rng.gumbel(size=self.outputs)).astype(np.int64)
        fired = np.zeros(self.outputs, np.int64)
        reached = np.full(self.outputs, np.iinfo(np.int64).min)
        for pre in spikes:
            post = self._advance(pre, noise)
            fired += post
            reached = np.maximum(reached, self._state.v)
            self.synapses.learn(pre, post, ~post if post.any() else None)
        self.decisions += 1
        self.time_steps = len(spikes)
        tie = rng.random(self.outputs)
        return int(np.lexsort((tie, reached, fired))[-1])

    def reward(self, reward: float) -> None:
        self.synapses.reward(reward)

    def _advance(self, pre: np.ndarray, noise: np.ndarray) -> np.ndarray:
        drive = self.synapses.levels[pre].sum(0)
        counts, events = self._layer, int(pre.sum())
        counts["input_event"] += events
        counts["synaptic_op"] += events * self.outputs
        counts["neuron_update_driven" if events else "neuron_update_idle"] += self.outputs
        wraps, clips = self._state.wraps, self._state.saturations
        # the threshold is applied below, since only the winner may fire
        self._step.integrate(self._state, drive + noise)
        self._other["noise_drive"] += int(np.count_nonzero(noise))
        counts["current_wrap"] += self._state.wraps - wraps
        counts["membrane_saturation"] += self._state.saturations - clips
        post = np.zeros(self.outputs, bool)
        winner = int(np.argmax(self._state.v))
        if self._state.v[winner] > self._step.params.vth << DRIVE_SHIFT:
            post[winner] = True
            self._state.v[:] = 0
            counts["spike"] += 1
            self._other["loser_reset"] += self.outputs - 1
        return post

    def ledger(self) -> Ledger:
        """Everything since the start: synapses and neurons, and what learning cost."""
        other = {**self.synapses.counts, **self._other}
        macs = (self.synapses.weight.size,)
        return Ledger(self.decisions, self.time_steps, (dict(self._layer),), other, macs)

    def state_dict(self) -> dict:
        return {
            "synapses": self.synapses.state_dict(),
            "layer": dict(self._layer),
            "other": dict(self._other),
            "decisions": self.decisions,
            "time_steps": self.time_steps,
        }

    def load_state_dict(self, state: dict) -> None:
        self.synapses.load_state_dict(state["synapses"])
        self._layer = {name: int(n) for name, n in state["layer"].items()}
        self._other = {name: int(n) for name, n in state["other"].items()}
        self.decisions, self.time_steps = int(state["decisions"]), int(state["time_steps"])
