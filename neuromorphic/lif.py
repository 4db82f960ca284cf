"""One step of the Loihi-1 integer LIF neuron, with the points where public emulators disagree.

    a = synaptic drive of the spikes of the step before
    u = wrap24(dec(u, du + 1) + a * 2^6)         current; the +1 is hidden in the chip
    v = clip(dec(v, dv) + u + b, +-(2^23 - 1))   b = mantissa << exponent
    s = v > (vth << 6);  v[s] = 0

This closed form equals Lava's bit-accurate LIF, Brian2Loihi and the Nengo Loihi emulator where
they agree; it matches the public emulators, which is not a claim about the silicon. This file is
the readable definition; `kernels.py` is the fast one, and a test holds them equal.

Sources: Davies et al. 2018, IEEE Micro 38(1); lava-nc/lava `proc/lif/models.py`;
Michaelis et al. 2022, "Brian2Loihi"; nengo/nengo-loihi `emulator/interface.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .weights import drive_of

DECAY_ONE = 4096  # 12-bit decays: k = 4096 forgets everything
DRIVE_SHIFT = 6  # drive and threshold count in units of 2^6 of the membrane
U_EDGE = 1 << 23  # 24 bits, two's complement
V_MAX = (1 << 23) - 1
VTH_MAX = (1 << 17) - 1
BIAS_MANTISSA_MAX = (1 << 12) - 1
BIAS_EXPONENT_MAX = 7


@dataclass(frozen=True)
class LifOptions:
    """Which emulator to follow where they disagree. The defaults are this project's choice.

    wrap: "twos_complement" (+2^23 becomes -2^23) | "keep_edge" (+-2^23 exactly stays).
    accumulator: "wide" | "nengo21": the drive a * 2^6 itself wraps at 21 bits and sign (Nengo).
    floor: "signed" | "zero": the membrane never falls below 0 (Nengo's default vmin).
    compare: ">" | ">=" (the SLAYER training library).

    That Nengo holds v at 0 in the refractory steps and Brian2Loihi does not update it is the same:
    the spike before them has just set it to 0.
    """

    wrap: str = "twos_complement"
    accumulator: str = "wide"
    floor: str = "signed"
    compare: str = ">"

    def __post_init__(self) -> None:
        choices = {
            "wrap": ("twos_complement", "keep_edge"),
            "accumulator": ("wide", "nengo21"),
            "floor": ("signed", "zero"),
            "compare": (">", ">="),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {allowed}")


@dataclass(frozen=True)
class LifParams:
    """Integer parameters, scalars or arrays [N]; refractory delay in steps (0: none)."""

    du: np.ndarray | int
    dv: np.ndarray | int
    vth: np.ndarray | int
    bias_mantissa: np.ndarray | int = 0
    bias_exponent: np.ndarray | int = 0
    refractory_delay: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "du": (0, DECAY_ONE - 1),
            "dv": (0, DECAY_ONE - 1),
            "vth": (0, VTH_MAX),
            "bias_mantissa": (-BIAS_MANTISSA_MAX - 1, BIAS_MANTISSA_MAX),
            "bias_exponent": (0, BIAS_EXPONENT_MAX),
            "refractory_delay": (0, 63),
        }
        for name, (low, high) in ranges.items():
            value = np.asarray(getattr(self, name))
            if not np.issubdtype(value.dtype, np.integer) or ((value < low) | (value > high)).any():
                raise ValueError(f"{name} must be integers in {low}..{high}")

    @property
    def bias(self) -> np.ndarray:
        return np.asarray(self.bias_mantissa, np.int64) << np.asarray(self.bias_exponent, np.int64)


@dataclass
class LifState:
    """u, v: int64 [N] within 24 bits; wait [N]: refractory steps left.

    wraps, saturations: how often the current wrapped and the membrane was clipped, ever.
    """

    u: np.ndarray
    v: np.ndarray
    wait: np.ndarray
    wraps: int = 0
    saturations: int = 0

    @classmethod
    def zeros(cls, neurons: int) -> LifState:
        return cls(*(np.zeros(neurons, np.int64) for _ in range(3)))

    def state_dict(self) -> dict:
        arrays = {name: getattr(self, name).copy() for name in ("u", "v", "wait")}
        return {**arrays, "wraps": self.wraps, "saturations": self.saturations}

    def load_state_dict(self, state: dict) -> None:
        for name in ("u", "v", "wait"):
            setattr(self, name, np.array(state[name], np.int64))
        self.wraps, self.saturations = int(state["wraps"]), int(state["saturations"])


def dec(x: np.ndarray, k: np.ndarray | int) -> np.ndarray:
    """sign(x) * ((|x| * (4096 - k)) >> 12): decay, rounded toward zero."""
    x = np.asarray(x, np.int64)
    return np.sign(x) * ((np.abs(x) * (DECAY_ONE - np.asarray(k, np.int64))) >> 12)


def wrap_signed(x: np.ndarray, edge: int = U_EDGE, keep_edge: bool = False) -> np.ndarray:
    """Two's-complement wrap into [-edge, edge); `keep_edge` leaves exactly +edge alone."""
    wrapped = ((np.asarray(x, np.int64) + edge) & (2 * edge - 1)) - edge
    return np.where(np.asarray(x) == edge, edge, wrapped) if keep_edge else wrapped


def synaptic_drive(
    mantissa: np.ndarray, exponent: int, spikes: np.ndarray, negative_exponent: str = "weight"
) -> np.ndarray:
    """a [out] of spikes [in] through mantissas [out, in].

    negative_exponent: "weight" shifts each weight (Brian2Loihi, Nengo), "sum" shifts their sum
    (Lava). They are the same for exponents >= 0, and for -1 with even mantissas.
    """
    if negative_exponent not in ("weight", "sum"):
        raise ValueError(f"negative_exponent={negative_exponent!r} is neither 'weight' nor 'sum'")
    spikes = np.asarray(spikes, np.int64)
    if negative_exponent == "weight":
        return drive_of(mantissa, exponent) @ spikes
    return drive_of(np.asarray(mantissa, np.int64) @ spikes, exponent)


@dataclass
class LifStep:
    """The step as an object: parameters and options; the state is handed in and changed.

    >>> lif = LifStep(LifParams(du=4095, dv=0, vth=1))
    >>> state = LifState.zeros(1)
    >>> [int(lif(state, np.array([1]))[0]) for _ in range(2)]
    [0, 1]
    """

    params: LifParams
    options: LifOptions = field(default_factory=LifOptions)

    def __call__(self, state: LifState, drive: np.ndarray) -> np.ndarray:
        """Advance `state` by one step under drive a [N] (int); returns spikes bool [N]."""
        waiting = self.integrate(state, drive)
        threshold = np.asarray(self.params.vth, np.int64) << DRIVE_SHIFT
        spikes = state.v > threshold if self.options.compare == ">" else state.v >= threshold
        spikes &= ~waiting
        state.v = np.where(spikes, 0, state.v)
        state.wait = np.where(spikes, self.params.refractory_delay, np.maximum(state.wait - 1, 0))
        return spikes

    def integrate(self, state: LifState, drive: np.ndarray) -> np.ndarray:
        """Current and membranes of the step, before any spike; returns bool [N]: refractory."""
        params, options = self.params, self.options
        current = np.asarray(drive, np.int64) << DRIVE_SHIFT
        if options.accumulator == "nengo21":
            accumulated = wrap_signed(current, 1 << 21)
            state.wraps += int((accumulated != current).sum())
            current = accumulated
        exact = dec(state.u, np.asarray(params.du) + 1) + current
        state.u = wrap_signed(exact, keep_edge=options.wrap == "keep_edge")
        state.wraps += int((state.u != exact).sum())

        free = dec(state.v, params.dv) + state.u + params.bias
        floor = 0 if options.floor == "zero" else -V_MAX
        v = np.clip(free, floor, V_MAX)
        # a floor at zero is the neuron's model, not an overflow
        clipped = np.abs(free) > V_MAX
        waiting = state.wait > 0
        if waiting.any():
            v = np.where(waiting, state.v, v)
            clipped &= ~waiting
        state.saturations += int(clipped.sum())
        state.v = v
        return waiting
